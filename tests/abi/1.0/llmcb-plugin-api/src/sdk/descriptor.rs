//! What a plugin says of itself before any work.

use serde::{Deserialize, Serialize};

use super::model::{BlockInputs, CalibrationPlan};

/// Whether a plugin compresses models or runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginKind {
    /// Compresses models.
    Method,
    /// Runs models: as an engine, as a runner, or both.
    Backend,
}

/// The work to cite when results of a plugin are published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Citation {
    /// Title of the work.
    pub title: String,
    /// Authors, as they should be printed.
    pub authors: String,
    /// Conference or journal, and year.
    pub venue: String,
    /// Where to read it.
    pub url: String,
}

/// What a method needs from engine and host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Statistics of activations, so calibration text.
    pub calibration: bool,
    /// Gradients from the engine.
    pub gradients: bool,
    /// How the engine walks the calibration data.
    pub plan: CalibrationPlan,
    /// Devices it works on: `cpu`, `cuda`.
    pub devices: Vec<String>,
}

/// Options of one role, as a JSON Schema made from the option type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleDescriptor {
    /// `method`, `engine` or `runner`.
    pub role: String,
    /// JSON Schema of the options object, with defaults and ranges.
    pub options: serde_json::Value,
}

/// Everything that can be known of a plugin without work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Name on the command line: lower case, digits, `-` and `_`.
    pub id: String,
    /// Name in tables.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Method or backend.
    pub kind: PluginKind,
    /// One sentence.
    #[serde(default)]
    pub summary: String,
    /// Several paragraphs: what it does, when to use it, what to expect.
    #[serde(default)]
    pub description: String,
    /// SPDX expression.
    #[serde(default)]
    pub licence: String,
    /// Who wrote the plugin.
    #[serde(default)]
    pub authors: String,
    /// The work behind it.
    #[serde(default)]
    pub citation: Option<Citation>,
    /// What a method needs.
    #[serde(default)]
    pub needs: Needs,
    /// What it makes (`dense`, `gptq`, ...) or, for a backend, what it loads.
    #[serde(default)]
    pub formats: Vec<String>,
    /// Roles with their options; the SDK fills this in.
    #[serde(default)]
    pub roles: Vec<RoleDescriptor>,
}

impl Descriptor {
    fn new(kind: PluginKind, id: &str, name: &str, version: &str) -> Self {
        Descriptor {
            id: id.into(),
            name: name.into(),
            version: version.into(),
            kind,
            summary: String::new(),
            description: String::new(),
            licence: String::new(),
            authors: String::new(),
            citation: None,
            needs: Needs { devices: vec!["cpu".into()], ..Needs::default() },
            formats: vec!["dense".into()],
            roles: Vec::new(),
        }
    }

    /// Descriptor of a method.
    pub fn method(id: &str, name: &str, version: &str) -> Self {
        Self::new(PluginKind::Method, id, name, version)
    }

    /// Descriptor of a backend.
    pub fn backend(id: &str, name: &str, version: &str) -> Self {
        Self::new(PluginKind::Backend, id, name, version)
    }

    /// Sets the one-sentence summary.
    pub fn summary(mut self, text: &str) -> Self {
        self.summary = text.into();
        self
    }

    /// Sets the long description.
    pub fn description(mut self, text: &str) -> Self {
        self.description = text.into();
        self
    }

    /// Sets the licence, an SPDX expression.
    pub fn licence(mut self, spdx: &str) -> Self {
        self.licence = spdx.into();
        self
    }

    /// Sets the plugin's authors.
    pub fn authors(mut self, authors: &str) -> Self {
        self.authors = authors.into();
        self
    }

    /// Sets the work to cite.
    pub fn citation(mut self, title: &str, authors: &str, venue: &str, url: &str) -> Self {
        self.citation = Some(Citation {
            title: title.into(),
            authors: authors.into(),
            venue: venue.into(),
            url: url.into(),
        });
        self
    }

    /// Says that the method needs calibration text.
    pub fn needs_calibration(mut self) -> Self {
        self.needs.calibration = true;
        self
    }

    /// Says that each block is to read what the dense blocks before it give, not the compressed ones.
    pub fn reads_dense_inputs(mut self) -> Self {
        self.needs.plan.inputs = BlockInputs::Dense;
        self
    }

    /// Says that a block's outputs are to be compared with those of the dense block in the dense model.
    pub fn aims_at_dense_outputs(mut self) -> Self {
        self.needs.plan.dense_targets = true;
        self
    }

    /// Says that the method needs gradients.
    pub fn needs_gradients(mut self) -> Self {
        self.needs.gradients = true;
        self
    }

    /// Sets the devices it works on.
    pub fn devices(mut self, devices: &[&str]) -> Self {
        self.needs.devices = devices.iter().map(|d| (*d).into()).collect();
        self
    }

    /// Sets the formats it makes or loads.
    pub fn formats(mut self, formats: &[&str]) -> Self {
        self.formats = formats.iter().map(|f| (*f).into()).collect();
        self
    }

    /// Options schema of a role, if the plugin has it.
    pub fn options_of(&self, role: &str) -> Option<&serde_json::Value> {
        self.roles.iter().find(|r| r.role == role).map(|r| &r.options)
    }

    /// Checks what every descriptor must have. Returns all faults, one line each.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let id_ok = !self.id.is_empty()
            && self.id.len() <= 64
            && self.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        if !id_ok {
            faults.push(format!("id `{}` must be 1 to 64 lower-case letters, digits, `-` or `_`", self.id));
        }
        for (field, value) in [("name", &self.name), ("version", &self.version), ("summary", &self.summary)] {
            if value.trim().is_empty() {
                faults.push(format!("`{field}` is empty"));
            }
        }
        if self.roles.is_empty() {
            faults.push("it has no role".into());
        }
        faults
    }
}
