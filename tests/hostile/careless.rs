//! A method that is sound but for one carelessness of the tester's choice, named by the environment variable `LLMCB_HOSTILE`: each is
//! what one check of the conformance suite is there to find.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llmcb_plugin_api::sdk::*;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

fn careless(of: &str) -> bool {
    std::env::var("LLMCB_HOSTILE").is_ok_and(|mode| mode == of)
}

/// Its options; what it says of them depends on the carelessness, so nothing is derived.
#[derive(Serialize)]
struct Options {
    factor: f64,
    level: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { factor: if careless("default_out_of_range") { 1.5 } else { 0.9 }, level: 4 }
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error;
        let mut options = Options::default();
        for (name, value) in Map::<String, Value>::deserialize(deserializer)? {
            match name.as_str() {
                "factor" => options.factor = serde_json::from_value(value).map_err(Error::custom)?,
                "level" => options.level = serde_json::from_value(value).map_err(Error::custom)?,
                _ if careless("any_option") => {}
                other => return Err(Error::custom(format!("unknown option `{other}`"))),
            }
        }
        Ok(options)
    }
}

impl JsonSchema for Options {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Options".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let meaning = if careless("no_description") { "" } else { "Every weight is multiplied by this." };
        json_schema!({"type": "object", "additionalProperties": false, "properties": {
            "factor": {"type": "number", "minimum": 0.0, "maximum": 1.0, "description": meaning},
            "level": {"type": "integer", "minimum": 1, "maximum": 8, "description": "How often it looks."},
        }})
    }
}

/// Instances that are alive.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// Whether an instance was stopped, or saw a panic.
static SPOILT: AtomicBool = AtomicBool::new(false);

struct Careless(Options);

impl Drop for Careless {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Method for Careless {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("careless", "Careless", env!("CARGO_PKG_VERSION"))
            .summary("Makes one mistake of your choice.")
            .licence("MIT OR Apache-2.0")
            .needs_calibration()
    }

    fn new(options: Options, host: &Host) -> Result<Self> {
        if careless("divides_by_option") {
            host.log(LogLevel::Debug, format!("a look each {} columns", 64 / options.level));
        }
        if careless("works_no_more") && SPOILT.load(Ordering::SeqCst) {
            return Err(Error::failed("something went wrong once"));
        }
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Ok(Careless(options))
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        if careless("first_linear") {
            host.log(LogLevel::Debug, format!("beginning with {}", block.linears()[0].name));
        }
        self.leave_something_behind();
        for linear in block.linears().to_vec() {
            host.check_cancelled()?;
            let done = self.linear(block, &linear, host);
            if let Err(error) = &done
                && matches!(error.kind(), ErrorKind::Panicked | ErrorKind::Cancelled)
            {
                SPOILT.store(true, Ordering::SeqCst);
            }
            match done {
                Err(_) if careless("goes_on") => {}
                Err(_) if careless("own_words") => return Err(Error::failed("it did not work")),
                done => done?,
            }
        }
        Ok(())
    }
}

impl Careless {
    fn leave_something_behind(&self) {
        if careless("leaks") {
            std::mem::forget(vec![1u8; 1 << 20]);
        }
        if careless("leaks_files") {
            std::mem::forget(std::fs::File::open("/dev/null"));
        }
        if careless("leaks_threads") {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        if careless("prints") {
            println!("compressing, please wait");
        }
    }

    fn linear(&self, block: &mut Block<'_>, linear: &Linear, host: &Host) -> Result<()> {
        let request = StatisticsRequest::of([linear.name.as_str()]).sum_squares();
        let statistics = block.input_statistics(&request)?;
        let squares = statistics[0].sum_squares.as_ref().map(Tensor::to_f32).transpose()?.unwrap_or_default();
        let weight = block.weight(&linear.name)?;
        let mut values = weight.to_f32()?;
        if careless("ignores_strides") && !weight.is_contiguous() {
            // As one that takes the elements in the order in which they lie: the right numbers in wrong places.
            values.reverse();
        }
        if careless("variance") {
            let freedom = linear.in_features.wrapping_sub(1);
            host.log(LogLevel::Debug, format!("spread {}", 1000 / freedom));
        }
        if careless("whole_groups") {
            assert!(linear.in_features.is_multiple_of(2) || linear.in_features == 1, "columns are left over");
        }
        if careless("short_index") {
            let last = u16::try_from(values.len()).expect("a position fits in 16 bits");
            host.log(LogLevel::Debug, format!("{last} weights"));
        }
        if careless("compares") {
            values.iter().max_by(|a, b| a.partial_cmp(b).expect("numbers can be compared"));
        }
        if careless("divides_by_tokens") {
            let tokens = statistics[0].tokens as f32;
            values.iter_mut().for_each(|w| *w += squares.iter().sum::<f32>() / tokens * 1e-6);
        }
        if careless("largest_level") {
            let levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
            values[0] *= levels[self.0.level as usize];
        }
        let mut factor = self.0.factor as f32;
        if careless("clock") {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_nanos());
            factor += now as f32 * 1e-10;
        }
        if careless("thread_count") {
            factor += host.threads() as f32 * 1e-3;
        }
        if careless("shared_state") {
            factor += ALIVE.load(Ordering::SeqCst) as f32 * 1e-3;
        }
        if careless("remembers") && SPOILT.load(Ordering::SeqCst) {
            factor *= 0.5;
        }
        values.iter_mut().for_each(|w| *w *= factor);
        block.set_weight(&linear.name, Tensor::from_vec(values, &linear.shape())?)
    }
}

llmcb_plugin_api::export_method!(Careless);
