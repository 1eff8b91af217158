//! `__schema`: JSON Schemas of the result files and of the report of `plugins check`, from which the copies in the repository are made.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::failure::Failure;
use super::output;
use crate::plugins::check::CheckReport;
use crate::suite::result::{RunResult, StageResult, json_schema};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Stage,
    Run,
    Check,
}

/// Print the JSON Schema of a result file
#[derive(Debug, Args)]
pub struct SchemaCommand {
    /// Which file
    which: Which,
}

fn schema(which: Which) -> Value {
    match which {
        Which::Stage => json_schema::<StageResult>("llmcb-host: result.json of a stage"),
        Which::Run => json_schema::<RunResult>("llmcb-host: run.json of a run"),
        Which::Check => json_schema::<CheckReport>("llmcb-host: plugins check --json"),
    }
}

/// Runs the command.
pub fn run(command: &SchemaCommand) -> Result<ExitCode, Failure> {
    output::json(&schema(command.which))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copies_in_the_repository_are_current() {
        for (which, name, copy) in [
            (Which::Stage, "stage", include_str!("../../schema/stage-result.json")),
            (Which::Run, "run", include_str!("../../schema/run-result.json")),
            (Which::Check, "check", include_str!("../../schema/check-result.json")),
        ] {
            let copy: Value = serde_json::from_str(copy).expect("JSON");
            let file = format!("host/schema/{name}-result.json");
            assert!(copy == schema(which), "write `llmcb-host __schema {name}` to {file}");
        }
    }

    #[test]
    fn a_result_file_fits_its_schema() {
        let validator = jsonschema::validator_for(&schema(Which::Run)).expect("a schema");
        let run = serde_json::to_value(crate::report::table::tests::sample()).expect("JSON");
        let errors: Vec<String> =
            validator.iter_errors(&run).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}
