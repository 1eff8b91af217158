//! The `llmcb-host` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    llmcb_host::cli::main()
}
