//! Loads the example plugin as a host would: from its shared object.

use std::path::PathBuf;
use std::sync::Arc;

use llmcb_plugin_api::abi::{ABI_MAJOR, header::PluginHeader};
use llmcb_plugin_api::loader::{LoadError, LoadedPlugin};
use llmcb_plugin_api::sdk::{ErrorKind, HostServices, LogLevel, PluginKind, Result};
use serde_json::json;

struct Services;

impl HostServices for Services {
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn log(&self, _: LogLevel, _: &str) {}
    fn seed(&self) -> u64 {
        0
    }
    fn threads(&self) -> u32 {
        1
    }
    fn save_state(&self, _: &str, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn load_state(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Cargo puts examples beside the tests' own folder.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target folder");
    profile.join("examples/libshrink.so")
}

#[test]
fn the_header_is_read_first() {
    assert_eq!(LoadedPlugin::header(&example()).expect("header"), PluginHeader::CURRENT);
    assert_eq!(PluginHeader::CURRENT.abi_major, ABI_MAJOR);
}

#[test]
fn the_descriptor_carries_the_schema_of_the_options() {
    let plugin = LoadedPlugin::open(&example()).expect("plugin");
    let descriptor = plugin.descriptor();
    assert_eq!((descriptor.id.as_str(), descriptor.kind), ("shrink", PluginKind::Method));
    let factor = &descriptor.options_of("method").expect("schema")["properties"]["factor"];
    assert_eq!(factor["default"], json!(0.99));
    assert_eq!(factor["maximum"], json!(2.0));
    assert_eq!(factor["description"], json!("Every weight is multiplied by this."));
}

#[test]
fn options_are_completed_and_unknown_ones_refused() {
    let plugin = LoadedPlugin::open(&example()).expect("plugin");
    let complete = plugin.normalize_options("method", &json!({})).expect("defaults");
    assert_eq!(complete, json!({"factor": 0.99}));
    let error = plugin.normalize_options("method", &json!({"facto": 1})).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("unknown field `facto`"), "{error}");
    assert!(plugin.new_method(&json!({"factor": 1.0}), Arc::new(Services)).is_ok());
}

#[test]
fn a_role_the_plugin_lacks_is_answered_not_fatal() {
    let plugin = LoadedPlugin::open(&example()).expect("plugin");
    for error in [
        plugin.open_engine("/nowhere".as_ref(), &json!({}), Arc::new(Services)).err(),
        plugin.open_runner("/nowhere".as_ref(), &json!({}), Arc::new(Services)).err(),
        plugin.normalize_options("runner", &json!({})).err(),
    ] {
        assert_eq!(error.expect("no such role").kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_file_that_is_no_plugin_is_named_in_one_line() {
    let directory = std::env::temp_dir().join(format!("llmcb-load-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("folder");
    let text = directory.join("libtext.so");
    std::fs::write(&text, "not a library").expect("file");
    let cases = [
        (text.clone(), "not a loadable shared object"),
        (directory.join("libmissing.so"), "cannot be read"),
        (PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6"), "exports no `llmcb_plugin_header`"),
    ];
    for (path, expected) in cases {
        let message = LoadedPlugin::open(&path).err().map(|e: LoadError| e.to_string()).expect("refused");
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(path.file_name().expect("name").to_str().expect("text")), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    std::fs::remove_dir_all(&directory).expect("clean");
}
