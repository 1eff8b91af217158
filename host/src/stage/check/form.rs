//! Checks of what a plugin is before it does anything: its header, its types, its descriptor.

use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
use llmcb_plugin_api::loader::LoadedPlugin;
use llmcb_plugin_api::sdk::PluginKind;

use super::{Checked, Given, fail, open};

/// The frozen header.
pub(super) fn header(given: &Given) -> Checked {
    let header = LoadedPlugin::header(&given.path).map_err(fail)?;
    let theirs = format!("ABI {}.{}", header.abi_major, header.abi_minor);
    if header.abi_major != ABI_MAJOR || header.abi_minor > ABI_MINOR {
        return Err(fail(format!("{theirs}; this host has ABI {ABI_MAJOR}.{ABI_MINOR}")));
    }
    Ok(theirs)
}

/// The types of the root module.
pub(super) fn layout(given: &Given) -> Checked {
    open(&given.path).map(|_| String::new())
}

/// The descriptor.
pub(super) fn descriptor(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
    let descriptor = plugin.descriptor();
    let mut faults = descriptor.faults();
    let expected: &[&str] = match descriptor.kind {
        PluginKind::Method => &["method"],
        _ => &["engine", "runner"],
    };
    for role in &descriptor.roles {
        if !expected.contains(&role.role.as_str()) {
            faults.push(format!("a {:?} has no role `{}`", descriptor.kind, role.role));
        }
    }
    if descriptor.needs.devices.is_empty() {
        faults.push("it names no device it works on".into());
    }
    if descriptor.licence.trim().is_empty() {
        faults.push("it names no licence".into());
    }
    if faults.is_empty() {
        return Ok(format!("{} {}", descriptor.id, descriptor.version));
    }
    Err(fail(faults.join("; ")))
}
