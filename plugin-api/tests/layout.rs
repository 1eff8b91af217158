//! The layout of everything that crosses the boundary is frozen, minor by minor.
//!
//! `layout/MAJOR.MINOR.txt` is the layout of a minor as text, one type a paragraph. That of the present minor must be what the types are
//! now; and what an older one had must still be there: the same types in the same places, with nothing but fields and methods appended.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{align_of, offset_of, size_of};
use std::path::PathBuf;

use abi_stable::StableAbi;
use abi_stable::type_layout::{TLData, TLField, TLFields, TLFunction, TypeLayout};
use llmcb_plugin_api::abi::engine::statistic;
use llmcb_plugin_api::abi::error::kind;
use llmcb_plugin_api::abi::header::{HEADER_SYMBOL, MAGIC, PluginHeader};
use llmcb_plugin_api::abi::root::PluginRootRef;
use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};

/// The crate whose types are spelled out. Those of abi_stable follow from its version.
const OWN: &str = "llmcb-plugin-api";

/// How paragraphs begin that may grow at their end.
const GROW: [&str; 2] = ["prefix type ", "constants"];

/// Set to write the layout of a minor that has none yet.
const FREEZE: &str = "LLMCB_FREEZE";

/// The version numbers in which two packages must agree to fit, as abi_stable and cargo see it.
fn compatible(version: &str) -> String {
    let mut numbers = version.split('.');
    match (numbers.next(), numbers.next()) {
        (Some("0"), Some(minor)) => format!("0.{minor}"),
        (major, _) => major.unwrap_or_default().to_owned(),
    }
}

fn types(fields: TLFields) -> impl Iterator<Item = &'static TypeLayout> {
    fields.iter().map(|field| field.layout()).collect::<Vec<_>>().into_iter()
}

/// Fields of a type, whatever it is.
fn fields(layout: &'static TypeLayout) -> TLFields {
    match layout.data() {
        TLData::Struct { fields } | TLData::Union { fields } => fields,
        TLData::Enum(own) => own.fields,
        TLData::PrefixType(own) => own.fields,
        TLData::Primitive(_) | TLData::Opaque => layout.phantom_fields(),
    }
}

/// The name of a type with what it holds: abi_stable's own names leave that out.
fn name(layout: &'static TypeLayout) -> String {
    let plain = layout.name();
    let of = |held: Option<&'static TypeLayout>| held.map(name).unwrap_or_default();
    let field = |wanted: &str| fields(layout).iter().find(|f| f.name() == wanted).map(|f| f.layout());
    match plain {
        // What generic types hold is what their marker is of.
        "RVec" | "RBox" | "RArc" | "RSlice" | "RMut" | "RRef" => {
            let marker = types(fields(layout)).find(|held| held.name() == "PhantomData");
            let held =
                marker.and_then(|marker| types(marker.phantom_fields()).chain(parameters(marker)).next());
            format!("{plain}<{}>", of(held))
        }
        "NonNull" | "ManuallyDrop" | "PrefixRef" | "PhantomData" | "*const" | "*mut" | "&" | "&mut" => {
            let held =
                types(layout.phantom_fields()).chain(types(fields(layout))).chain(parameters(layout)).next();
            match plain {
                "&" => format!("&{}", of(held)),
                "*const" | "*mut" | "&mut" => format!("{plain} {}", of(held)),
                "ManuallyDrop" => of(held),
                _ => format!("{plain}<{}>", of(held)),
            }
        }
        "ROption" | "RResult" | "Option" => {
            let held: Vec<String> = types(fields(layout)).map(name).collect();
            format!("{plain}<{}>", held.join(", "))
        }
        // The vtable of a trait object, which stands in a module of its own.
        "VTable" => {
            let module = format!("{:?}", layout.mod_path());
            let module = module.rsplit("::").next().unwrap_or_default();
            format!("VTable of {}", module.split("_trait").next().unwrap_or(module))
        }
        trait_object if trait_object.ends_with("_TO") => {
            let pointer = field("obj")
                .and_then(|object| fields(object).iter().find(|f| f.name() == "ptr").map(|f| f.layout()));
            format!("{plain}<{}>", of(pointer))
        }
        _ => layout.full_type().to_string(),
    }
}

fn parameters(layout: &'static TypeLayout) -> impl Iterator<Item = &'static TypeLayout> {
    layout.generics().type_params().iter().map(|of| of())
}

fn function(function: &TLFunction) -> String {
    let parameters: Vec<String> = function.param_type_layouts.iter().map(|of| name(of())).collect();
    let result = function.return_type_layout().map(|of| format!(" -> {}", name(of()))).unwrap_or_default();
    let unsafety = if function.fn_qualifs.is_unsafe() { "unsafe " } else { "" };
    format!("{unsafety}fn({}){result}", parameters.join(", "))
}

fn line(field: &TLField) -> String {
    let functions: Vec<String> = field.function_range().iter().map(|f| function(&f)).collect();
    let what = if field.is_function() { String::new() } else { name(field.layout()) };
    let parts: Vec<String> = Some(what).filter(|w| !w.is_empty()).into_iter().chain(functions).collect();
    let layout = field.layout();
    format!(
        "  {}: {} (size {}, align {})",
        field.name(),
        parts.join(" with "),
        layout.size(),
        layout.alignment()
    )
}

/// Renders the types of this crate that are reached from a type, each once.
#[derive(Default)]
struct Renderer {
    paragraphs: Vec<String>,
    seen: BTreeSet<String>,
    texts: BTreeMap<String, String>,
    packages: BTreeSet<String>,
}

impl Renderer {
    fn visit(&mut self, layout: &'static TypeLayout) {
        if !self.seen.insert(format!("{:?}", layout.get_utypeid())) {
            return;
        }
        let (package, version) = layout.package_and_version();
        if ["abi_stable", OWN].contains(&package.as_str()) {
            self.packages.insert(format!("  package {package} {}", compatible(&version.version)));
        }
        if package.as_str() == OWN {
            self.paragraph(layout);
        }
        let mut next: Vec<&'static TypeLayout> = types(layout.phantom_fields()).collect();
        for field in fields(layout).iter() {
            next.push(field.layout());
            for function in field.function_range().iter() {
                next.extend(function.param_type_layouts.iter().map(|of| of()));
                next.extend(function.return_type_layout().map(|of| of()));
            }
        }
        next.into_iter().for_each(|layout| self.visit(layout));
    }

    fn paragraph(&mut self, layout: &'static TypeLayout) {
        let name = name(layout);
        let (size, align) = (layout.size(), layout.alignment());
        let (kind, further, extra) = match layout.data() {
            TLData::PrefixType(own) => {
                ("prefix type", format!(", {} in the prefix", own.first_suffix_field), None)
            }
            TLData::Enum(own) => {
                let variants = format!(
                    "  variants {} with {:?} fields, {:?}",
                    own.variant_names, own.field_count, own.discriminants
                );
                ("enum", String::new(), Some(variants))
            }
            TLData::Union { .. } => ("union", String::new(), None),
            TLData::Struct { .. } => ("struct", String::new(), None),
            TLData::Primitive(_) | TLData::Opaque => ("opaque type", String::new(), None),
        };
        let mut lines =
            vec![format!("{kind} {name}: size {size}, align {align}{further}, {:?}", layout.repr_attr())];
        lines.extend(extra);
        lines.extend(fields(layout).iter().map(|field| line(&field)));
        let text = lines.join("\n");
        match self.texts.get(&name) {
            None => {
                self.texts.insert(name, text.clone());
                self.paragraphs.push(text);
            }
            // One trait's vtables for several pointers are alike.
            Some(before) => assert_eq!(*before, text, "two types are called {name}"),
        }
    }
}

/// The whole layout of this version.
fn render() -> String {
    let mut renderer = Renderer::default();
    renderer.visit(PluginRootRef::LAYOUT);
    let mut constants = vec!["constants".to_owned()];
    constants.extend(renderer.packages);
    constants.push(format!("  major {ABI_MAJOR}"));
    constants.push(format!("  header {HEADER_SYMBOL} {:?}", MAGIC.escape_ascii().to_string()));
    for (name, number) in [
        ("FAILED", kind::FAILED),
        ("INVALID", kind::INVALID),
        ("UNSUPPORTED", kind::UNSUPPORTED),
        ("CANCELLED", kind::CANCELLED),
        ("PANICKED", kind::PANICKED),
    ] {
        constants.push(format!("  error {name} {number}"));
    }
    for (name, number) in [
        ("GRAM", statistic::GRAM),
        ("SUM_SQUARES", statistic::SUM_SQUARES),
        ("ABS_MAX", statistic::ABS_MAX),
        ("ABS_MEAN", statistic::ABS_MEAN),
        ("ROWS", statistic::ROWS),
        ("DENSE_MODEL", statistic::DENSE_MODEL),
    ] {
        constants.push(format!("  statistic {name} {number}"));
    }
    let header = [
        format!(
            "struct PluginHeader: size {}, align {}",
            size_of::<PluginHeader>(),
            align_of::<PluginHeader>()
        ),
        format!("  magic at {}", offset_of!(PluginHeader, magic)),
        format!("  abi_major at {}", offset_of!(PluginHeader, abi_major)),
        format!("  abi_minor at {}", offset_of!(PluginHeader, abi_minor)),
        format!("  reserved at {}", offset_of!(PluginHeader, reserved)),
    ];
    let paragraphs = [vec![constants.join("\n"), header.join("\n")], renderer.paragraphs].concat();
    paragraphs.join("\n\n") + "\n"
}

/// What of an older layout is not in a newer one, one line each.
fn faults(old: &str, new: &str) -> Vec<String> {
    // A paragraph is known by its first words, before the numbers.
    let key = |paragraph: &str| paragraph.split([':', '\n']).next().unwrap_or_default().to_owned();
    let new: BTreeMap<String, Vec<&str>> =
        new.trim_end().split("\n\n").map(|p| (key(p), p.lines().collect())).collect();
    let mut faults = Vec::new();
    for paragraph in old.trim_end().split("\n\n") {
        let of = key(paragraph);
        let Some(now) = new.get(&of) else {
            faults.push(format!("{of} is gone"));
            continue;
        };
        let before: Vec<&str> = paragraph.lines().collect();
        for (at, line) in before.iter().enumerate() {
            match now.get(at) {
                Some(same) if same == line => {}
                Some(other) => faults.push(format!("{of}: `{}` became `{}`", line.trim(), other.trim())),
                None => faults.push(format!("{of}: `{}` is gone", line.trim())),
            }
        }
        if now.len() > before.len() && !GROW.iter().any(|grows| of.starts_with(grows)) {
            faults.push(format!("{of} has grown, and is no prefix type: `{}`", now[before.len()].trim()));
        }
    }
    faults
}

fn kept(major: u32, minor: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/layout").join(format!("{major}.{minor}.txt"))
}

#[test]
fn the_layout_of_this_minor_is_the_frozen_one() {
    let (file, now) = (kept(ABI_MAJOR, ABI_MINOR), render());
    if std::env::var_os(FREEZE).is_some() && !file.exists() {
        std::fs::write(&file, &now).expect("file of the layout");
    }
    let frozen = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; {FREEZE}=1 writes the layout of a new minor", file.display()));
    let changed: Vec<String> = faults(&frozen, &now).into_iter().chain(faults(&now, &frozen)).collect();
    assert!(
        frozen == now,
        "ABI {ABI_MAJOR}.{ABI_MINOR} is frozen: append to prefix types and traits only, and raise ABI_MINOR\n{}",
        changed.join("\n")
    );
}

#[test]
fn what_older_minors_had_is_still_there() {
    let now = render();
    for minor in 0..ABI_MINOR {
        let file = kept(ABI_MAJOR, minor);
        let old = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let faults = faults(&old, &now);
        assert!(
            faults.is_empty(),
            "plugins of ABI {ABI_MAJOR}.{minor} no longer fit:\n{}",
            faults.join("\n")
        );
    }
}

#[test]
fn every_role_and_the_root_are_in_it() {
    let text = render();
    for part in [
        "prefix type PluginRoot:",
        "prefix type VTable of AbiMethod:",
        "prefix type VTable of AbiEngine:",
        "prefix type VTable of AbiRunner:",
        "prefix type VTable of AbiHost:",
        "struct AbiTensor:",
        "struct AbiQuantizedWeight:",
        "struct AbiStatisticsRequest:",
        "struct AbiParameter:",
        "struct PluginHeader: size 32, align 4",
        "  log_probabilities: ",
        "  package llmcb-plugin-api ",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

/// Every way to break a layout is found, and appending is not one.
#[test]
fn changes_of_a_layout_are_found() {
    let now = render();
    assert_eq!(faults(&now, &now), [""; 0]);
    let swapped = |text: &str, a: &str, b: &str| {
        let (a, b) = (format!("\n  {a}: "), format!("\n  {b}: "));
        let changed = text.replacen(&a, "\n  ?: ", 1).replacen(&b, &a, 1).replacen("\n  ?: ", &b, 1);
        assert_ne!(changed, text, "nothing was swapped");
        changed
    };
    let without = |text: &str, line: &str| {
        let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with(&format!("  {line}: "))).collect();
        assert!(kept.len() < text.lines().count(), "there is no {line}");
        kept.join("\n") + "\n"
    };
    let inserted = |after: &str| {
        let at = now.find(&format!("\n  {after}: ")).expect("the line") + 1;
        let end = at + now[at..].find('\n').expect("its end") + 1;
        format!("{}  new: u64 (size 8, align 8)\n{}", &now[..end], &now[end..])
    };
    for (what, changed) in [
        ("two fields of a structure change places", swapped(&now, "rows", "columns")),
        ("two functions of the root change places", swapped(&now, "new_method", "open_engine")),
        ("two methods of a trait change places", swapped(&now, "open_block", "close_block")),
        ("a field goes", without(&now, "byte_offset")),
        ("a method goes", without(&now, "decode")),
        ("the last method goes", without(&now, "log_probabilities")),
        ("a type goes", now.replacen("struct AbiTensor:", "struct Other:", 1)),
        ("a size changes", now.replacen("message: RString (size 32", "message: RString (size 24", 1)),
        (
            "the size of a type changes",
            now.replacen("struct AbiDevice: size 8", "struct AbiDevice: size 16", 1),
        ),
        ("the prefix grows", now.replacen("5 in the prefix", "6 in the prefix", 1)),
        ("a field comes into the middle of a prefix type", inserted("descriptor")),
        ("a field is appended to what is no prefix type", inserted("deleter")),
        ("a constant changes", now.replacen("error CANCELLED 3", "error CANCELLED 4", 1)),
        ("the crate's version no longer fits", now.replacen(&format!("{OWN} 0."), &format!("{OWN} 9."), 1)),
        ("the header moves", now.replacen("abi_minor at 20", "abi_minor at 24", 1)),
    ] {
        assert_ne!(changed, now, "{what}: the change is not one");
        assert!(!faults(&now, &changed).is_empty(), "{what}, and nothing is said");
    }
    assert_eq!(faults(&now, &inserted("set_up_library")), [""; 0], "a function may be appended to the root");
    assert_eq!(faults(&now, &inserted("log_probabilities")), [""; 0], "a method may be appended to a trait");
}

#[test]
fn versions_fit_as_cargo_sees_it() {
    for (version, expected) in [("0.1.0", "0.1"), ("0.12.3", "0.12"), ("1.4.2", "1"), ("12.0.0", "12")] {
        assert_eq!(compatible(version), expected);
    }
}
