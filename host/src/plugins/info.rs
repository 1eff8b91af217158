//! `plugins info`: what a plugin says of itself, as a manual page.

use llmcb_plugin_api::sdk::{Descriptor, PluginKind};

use super::schema::{self, OptionDoc};

const INDENT: usize = 4;

/// The manual page of a plugin, in lines of at most `width` characters where words allow.
pub fn render(descriptor: &Descriptor, place: &str, width: usize) -> String {
    let mut page = Page { width: width.clamp(40, 100), text: String::new() };
    let kind = match descriptor.kind {
        PluginKind::Method => "method",
        PluginKind::Backend => "backend",
        _ => "plugin",
    };
    page.line(&format!("{} ({}), version {}, a {kind}", descriptor.name, descriptor.id, descriptor.version));
    page.paragraph(&descriptor.summary);
    if !descriptor.description.trim().is_empty() {
        page.heading("Description");
        for (at, paragraph) in descriptor.description.split("\n\n").enumerate() {
            if at > 0 {
                page.blank();
            }
            page.paragraph(paragraph);
        }
    }
    for role in &descriptor.roles {
        let options = schema::options(&role.options);
        let title = match role.role.as_str() {
            "method" => "Options".to_owned(),
            other => format!("Options as {other}"),
        };
        page.heading(&title);
        if options.is_empty() {
            page.paragraph("none");
        }
        for option in &options {
            page.option(option);
        }
    }
    page.heading("Needs");
    let needs = &descriptor.needs;
    let mut wanted = Vec::new();
    if needs.calibration {
        wanted.push("calibration text".to_owned());
    }
    if needs.gradients {
        wanted.push("an engine that gives gradients".to_owned());
    }
    if !needs.devices.is_empty() {
        wanted.push(format!("device {}", needs.devices.join(" or ")));
    }
    page.paragraph(&if wanted.is_empty() { "nothing".to_owned() } else { wanted.join("; ") });
    if !descriptor.formats.is_empty() {
        page.heading(if descriptor.kind == PluginKind::Backend { "Loads" } else { "Makes" });
        page.paragraph(&descriptor.formats.join(", "));
    }
    if let Some(abilities) = &descriptor.abilities {
        page.heading("Can");
        let does =
            [(abilities.scores, "score prompts"), (abilities.generates, "generate"), (true, "be timed")];
        let does: Vec<&str> = does.into_iter().filter(|(can, _)| *can).map(|(_, what)| what).collect();
        page.paragraph(&does.join(", "));
        for (device, formats) in &abilities.quantised {
            page.paragraph(&format!("compute with codes on {device}: {}", formats.join(", ")));
        }
    }
    if let Some(citation) = &descriptor.citation {
        page.heading("Cite");
        let parts: Vec<&str> = [&citation.authors, &citation.title, &citation.venue]
            .into_iter()
            .map(|part| part.trim().trim_end_matches('.'))
            .filter(|part| !part.is_empty())
            .collect();
        page.paragraph(&format!("{}.", parts.join(". ")));
        if !citation.url.is_empty() {
            page.paragraph(&citation.url);
        }
    }
    page.heading("Plugin");
    for (name, value) in
        [("licence", &descriptor.licence), ("authors", &descriptor.authors), ("file", &place.to_owned())]
    {
        if !value.is_empty() {
            page.paragraph(&format!("{name}: {value}"));
        }
    }
    if descriptor.kind == PluginKind::Method {
        page.heading("Example");
        page.indented(&format!("llmcb-host run --method {}", example(descriptor)));
    }
    page.text
}

/// The id with two of its options at their defaults.
fn example(descriptor: &Descriptor) -> String {
    let docs: Vec<OptionDoc> = descriptor.options_of("method").map(schema::options).unwrap_or_default();
    let set: Vec<String> = docs
        .iter()
        .filter_map(|doc| {
            Some(format!("{}={}", doc.name, doc.default.as_ref().filter(|d| !d.is_empty() && *d != "none")?))
        })
        .take(2)
        .collect();
    match set.len() {
        0 => descriptor.id.clone(),
        _ => format!("{}:{}", descriptor.id, set.join(",")),
    }
}

struct Page {
    width: usize,
    text: String,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn heading(&mut self, title: &str) {
        self.blank();
        self.line(title);
    }

    fn indented(&mut self, text: &str) {
        self.line(&format!("{}{text}", " ".repeat(INDENT)));
    }

    fn paragraph(&mut self, text: &str) {
        for line in wrap(text, self.width - INDENT) {
            self.indented(&line);
        }
    }

    fn option(&mut self, option: &OptionDoc) {
        let mut facts = vec![option.kind.clone()];
        if !option.range.is_empty() {
            facts.push(option.range.clone());
        }
        if let Some(default) = &option.default {
            facts.push(format!("default {}", if default.is_empty() { "empty" } else { default }));
        }
        self.indented(&format!("{}  ({})", option.name, facts.join("; ")));
        for line in wrap(&option.meaning, self.width - 2 * INDENT) {
            self.line(&format!("{}{line}", " ".repeat(2 * INDENT)));
        }
    }
}

/// Words in lines of at most `width` characters; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use llmcb_plugin_api::sdk::RoleDescriptor;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_like_a_manual_page() {
        let mut descriptor = Descriptor::method("gptq", "GPTQ", "0.1.0")
            .summary("Quantises weights one column at a time and corrects the columns that follow.")
            .description("The Hessian of each layer's output error is estimated from calibration text.\n\nExpect about a minute for a model of 135 million parameters on two cores; more bits cost nothing more.")
            .licence("MIT OR Apache-2.0")
            .authors("The authors of llmcb-host")
            .citation("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", "Frantar et al.", "ICLR 2023", "https://arxiv.org/abs/2210.17323")
            .needs_calibration()
            .formats(&["gptq", "dense"]);
        descriptor.roles = vec![RoleDescriptor {
            role: "method".into(),
            options: json!({"type": "object", "properties": {
                "bits": {"type": "integer", "enum": [2, 3, 4, 8], "default": 4, "description": "Bits of each weight."},
                "group_size": {"type": ["integer", "null"], "minimum": 1, "default": 128,
                    "description": "Columns that share a scale;\nnone: the whole row. Smaller groups are more exact and take more room."},
                "act_order": {"type": "boolean", "default": false, "description": "Takes columns with large activations first."},
            }}),
        }];
        insta::assert_snapshot!(render(&descriptor, "/usr/lib/llmcb/libgptq.so", 80));
    }

    #[test]
    fn a_backend_says_what_it_can_do() {
        let descriptor =
            Descriptor::backend("x", "X", "1").runs_quantised(&["cpu", "cuda"], &["gptq", "awq"]);
        let page = render(&descriptor, "x.so", 80);
        let expected =
            "\nCan\n    score prompts, generate, be timed\n    compute with codes on cpu: gptq, awq\n";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn a_bare_descriptor_is_a_page_too() {
        let page = render(&Descriptor::backend("x", "X", "1").summary("S."), "x.so", 10);
        assert!(page.starts_with("X (x), version 1, a backend\n    S.\n"), "{page}");
    }
}
