//! Development tasks. `cargo xtask` lists them.

mod bench;
mod demo;
mod dist;
mod environment;
mod guests;
mod licences;
mod process;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask TASK

  demo        build, fetch a real model and real data, compress it with four methods, print the table
  test        build everything and run all tests
  guests      build the metric components of the tests into target/guests (installs their compilers there)
  dist        make a release in dist/: program, plugins, SDK, guide, checksums (--help lists options)
  tvm         install TVM into target/ and run the tests that need it
  bench       compare with published Python implementations, as ratios (installs them into target/)
  licences    check the dependencies' licences against deny.toml
  schema      write the JSON Schemas of result files into host/schema/
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let result = match task.as_deref() {
        Some("demo") => demo::run(&rest),
        Some("test") => test::run(&rest),
        Some("guests") => guests::build(),
        Some("dist") => dist::run(&rest),
        Some("tvm") => test::run_with_tvm(),
        Some("bench") => bench::run_named(&rest),
        Some("licences") => licences::run(),
        Some("schema") => demo::write_schemas(),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => Err(format!("there is no task `{other}`\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
