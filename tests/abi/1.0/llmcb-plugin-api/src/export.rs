//! What the export macros expand to: adapters from the SDK's traits to the ABI's, with every panic caught.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, ROption, RSlice, RStr, RString, RVec};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::engine::{
    AbiEngine, AbiEngine_TO, AbiEngineBox, AbiGradients, AbiInputStatistics, AbiLossGradient,
    AbiModelGradients, AbiParameter, AbiStatisticsRequest,
};
use crate::abi::error::AbiResult;
use crate::abi::host::AbiHostArc;
use crate::abi::method::{AbiEngineMut, AbiMethod, AbiMethod_TO, AbiMethodBox};
use crate::abi::quantized::AbiQuantizedWeight;
use crate::abi::root::{PluginRoot, PluginRootRef};
use crate::abi::runner::{AbiRunner, AbiRunner_TO, AbiRunnerBox, AbiScore, AbiScoreRequest};
use crate::abi::tensor::{AbiNamedTensor, AbiTensor};
use crate::sdk::*;

thread_local! {
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f` and turns a panic into an error of kind `Panicked` that says where it was.
pub(crate) fn catch<T>(call: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
            eprintln!("panic at {}: {}", place.as_deref().unwrap_or("?"), payload_text(info.payload()));
            PANIC_PLACE.with(|p| *p.borrow_mut() = place);
        }));
    });
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let place =
            PANIC_PLACE.with(|p| p.borrow_mut().take()).map(|p| format!(" ({p})")).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Panicked,
            format!("panicked in {call}: {}{place}", payload_text(payload.as_ref())),
        ))
    })
}

fn payload_text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// An instance that is not used again once it has panicked: its state may be half-changed.
struct Guarded<T> {
    instance: T,
    panicked: bool,
}

impl<T> Guarded<T> {
    fn new(instance: T) -> Self {
        Guarded { instance, panicked: false }
    }

    fn call<R>(&self, call: &str, f: impl FnOnce(&T) -> Result<R>) -> AbiResult<R> {
        error_to_abi(self.usable(call).and_then(|()| catch(call, || f(&self.instance))))
    }

    fn call_mut<R>(&mut self, call: &str, f: impl FnOnce(&mut T) -> Result<R>) -> AbiResult<R> {
        let result = self.usable(call).and_then(|()| catch(call, || f(&mut self.instance)));
        if let Err(error) = &result {
            self.panicked |= error.kind() == ErrorKind::Panicked;
        }
        error_to_abi(result)
    }

    fn usable(&self, call: &str) -> Result<()> {
        if self.panicked {
            return Err(Error::new(ErrorKind::Panicked, format!("{call} was called after a panic")));
        }
        Ok(())
    }
}

fn error_to_abi<T>(result: Result<T>) -> AbiResult<T> {
    match result {
        Ok(value) => AbiResult::ROk(value),
        Err(error) => AbiResult::RErr(error.into()),
    }
}

fn json<T: Serialize>(value: &T) -> Result<RString> {
    serde_json::to_string(value)
        .map(RString::from)
        .map_err(|e| Error::failed(format!("cannot be written as JSON: {e}")))
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

fn strings(texts: &RSlice<'_, RString>) -> Vec<String> {
    texts.iter().map(|t| t.as_str().to_owned()).collect()
}

fn tokens(sequences: &RSlice<'_, RVec<u32>>) -> Vec<Vec<u32>> {
    sequences.iter().map(|s| s.as_slice().to_vec()).collect()
}

fn sequences(sequences: Vec<Vec<u32>>) -> RVec<RVec<u32>> {
    sequences.into_iter().map(RVec::from).collect()
}

fn named(tensors: RVec<AbiNamedTensor>) -> Result<Vec<(String, Tensor)>> {
    tensors.into_iter().map(|t| Ok((t.name.into_string(), Tensor::from_abi(t.tensor)?))).collect()
}

/// JSON Schema of an option type, with the default of every option filled in.
fn schema_of<O: JsonSchema + Default + Serialize>() -> serde_json::Value {
    let mut schema = schemars::schema_for!(O).to_value();
    // Through text: an `f32` of 0.99 shall read 0.99, not the digits of its nearest `f64`.
    let defaults = serde_json::to_string(&O::default()).and_then(|text| serde_json::from_str(&text));
    if let (Some(properties), Ok(serde_json::Value::Object(defaults))) =
        (schema.get_mut("properties").and_then(|p| p.as_object_mut()), defaults)
    {
        for (name, default) in defaults {
            if let Some(property) = properties.get_mut(&name).and_then(|p| p.as_object_mut()) {
                property.insert("default".into(), default);
            }
        }
    }
    schema
}

fn role<O: JsonSchema + Default + Serialize>(name: &str) -> RoleDescriptor {
    RoleDescriptor { role: name.into(), options: schema_of::<O>() }
}

fn normalize<O: DeserializeOwned + Serialize>(options: &str) -> Result<RString> {
    json(&parse::<O>("options", options)?)
}

struct MethodAdapter<M> {
    method: M,
    host: Host,
}

impl<M: Method> AbiMethod for Guarded<MethodAdapter<M>> {
    fn compress_block(&mut self, engine: AbiEngineMut<'_>, block_json: RStr<'_>) -> AbiResult<()> {
        self.call_mut("compress_block", |adapter| {
            let info: BlockInfo = parse("block description", block_json.as_str())?;
            let mut block = Block::new(info, EngineAccess(engine));
            adapter.method.compress_block(&mut block, &adapter.host)
        })
    }
    fn prepare(&mut self, engine: AbiEngineMut<'_>, blocks: u32) -> AbiResult<()> {
        self.call_mut("prepare", |adapter| {
            let mut model = WholeModel::new(blocks, EngineAccess(engine));
            adapter.method.prepare(&mut model, &adapter.host)
        })
    }
    fn finish(&mut self, engine: AbiEngineMut<'_>, blocks: u32) -> AbiResult<()> {
        self.call_mut("finish", |adapter| {
            let mut model = WholeModel::new(blocks, EngineAccess(engine));
            adapter.method.finish(&mut model, &adapter.host)
        })
    }
}

impl<E: Engine> AbiEngine for Guarded<E> {
    fn model(&self) -> AbiResult<RString> {
        self.call("model", |e| json(&e.model()))
    }
    fn encode(&self, texts: RSlice<'_, RString>, add_special: bool) -> AbiResult<RVec<RVec<u32>>> {
        self.call("encode", |e| Ok(sequences(e.encode(&strings(&texts), add_special)?)))
    }
    fn calibrate(&mut self, windows: RSlice<'_, RVec<u32>>, plan: RStr<'_>) -> AbiResult<()> {
        self.call_mut("calibrate", |e| {
            e.calibrate(&tokens(&windows), &parse("calibration plan", plan.as_str())?)
        })
    }
    fn open_block(&mut self, index: u32) -> AbiResult<RString> {
        self.call_mut("open_block", |e| json(&e.open_block(index)?))
    }
    fn block_info(&self) -> AbiResult<RString> {
        self.call("block_info", |e| json(&e.block_info()?))
    }
    fn weight(&self, name: RStr<'_>) -> AbiResult<AbiTensor> {
        self.call("weight", |e| Ok(e.weight(name.as_str())?.into_abi()))
    }
    fn set_weight(&mut self, name: RStr<'_>, weight: AbiTensor) -> AbiResult<()> {
        self.call_mut("set_weight", |e| e.set_weight(name.as_str(), Tensor::from_abi(weight)?))
    }
    fn set_quantized(&mut self, name: RStr<'_>, weight: AbiQuantizedWeight) -> AbiResult<()> {
        self.call_mut("set_quantized", |e| e.set_quantized(name.as_str(), QuantizedWeight::from_abi(weight)?))
    }
    fn input_statistics(&mut self, request: AbiStatisticsRequest) -> AbiResult<RVec<AbiInputStatistics>> {
        self.call_mut("input_statistics", |e| {
            let statistics = e.input_statistics(&StatisticsRequest::from_abi(request))?;
            Ok(statistics.into_iter().map(InputStatistics::into_abi).collect())
        })
    }
    fn forward(&mut self, trial: RVec<AbiNamedTensor>) -> AbiResult<AbiTensor> {
        self.call_mut("forward", |e| Ok(e.forward(&named(trial)?)?.into_abi()))
    }
    fn output_error(&mut self, trial: RVec<AbiNamedTensor>) -> AbiResult<f64> {
        self.call_mut("output_error", |e| e.output_error(&named(trial)?))
    }
    fn gradients(
        &mut self,
        parameters: RSlice<'_, RString>,
        trial: RVec<AbiNamedTensor>,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<AbiGradients> {
        self.call_mut("gradients", |e| {
            let request = GradientRequest {
                parameters: strings(&parameters),
                trial: named(trial)?,
                windows: windows.to_vec(),
            };
            let Gradients { error, gradients } = e.gradients(&request)?;
            let gradients = gradients
                .into_iter()
                .map(|(name, tensor)| AbiNamedTensor { name: name.into(), tensor: tensor.into_abi() })
                .collect();
            Ok(AbiGradients { error, gradients })
        })
    }
    fn module_error(&mut self, module: RStr<'_>, trial: RVec<AbiNamedTensor>) -> AbiResult<f64> {
        self.call_mut("module_error", |e| e.module_error(module.as_str(), &named(trial)?))
    }
    fn quantize_activations(&mut self, site: RStr<'_>, quantization: RStr<'_>) -> AbiResult<()> {
        self.call_mut("quantize_activations", |e| {
            let quantization: Option<ActivationQuantization> =
                parse("activation quantisation", quantization.as_str())?;
            if let Some(quantization) = &quantization {
                quantization.check()?;
            }
            e.quantize_activations(site.as_str(), quantization)
        })
    }
    fn loss_gradients(
        &mut self,
        linears: RSlice<'_, RString>,
        mean_square: bool,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<RVec<AbiLossGradient>> {
        self.call_mut("loss_gradients", |e| {
            let gradients = e.loss_gradients(&strings(&linears), mean_square, windows.as_slice())?;
            Ok(gradients
                .into_iter()
                .map(|g| AbiLossGradient {
                    linear: g.linear.into(),
                    gradient: g.gradient.into_abi(),
                    mean_square: ROption::from(g.mean_square.map(Tensor::into_abi)),
                })
                .collect())
        })
    }
    fn keep_units(&mut self, structure: RStr<'_>, units: RSlice<'_, u32>) -> AbiResult<()> {
        self.call_mut("keep_units", |e| e.keep_units(structure.as_str(), units.as_slice()))
    }
    fn close_block(&mut self) -> AbiResult<()> {
        self.call_mut("close_block", E::close_block)
    }
    fn model_structures(&self) -> AbiResult<RString> {
        self.call("model_structures", |e| json(&e.model_structures()?))
    }
    fn keep_model_units(&mut self, structure: RStr<'_>, units: RSlice<'_, u32>) -> AbiResult<()> {
        self.call_mut("keep_model_units", |e| e.keep_model_units(structure.as_str(), units.as_slice()))
    }
    fn model_block(&self, index: u32) -> AbiResult<RString> {
        self.call("model_block", |e| json(&e.model_block(index)?))
    }
    fn model_weight(&self, parameter: AbiParameter) -> AbiResult<AbiTensor> {
        self.call("model_weight", |e| Ok(e.model_weight(&Parameter::from_abi(&parameter))?.into_abi()))
    }
    fn set_model_weight(&mut self, parameter: AbiParameter, weight: AbiTensor) -> AbiResult<()> {
        self.call_mut("set_model_weight", |e| {
            e.set_model_weight(&Parameter::from_abi(&parameter), Tensor::from_abi(weight)?)
        })
    }
    fn model_gradients(
        &mut self,
        parameters: RSlice<'_, AbiParameter>,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<AbiModelGradients> {
        self.call_mut("model_gradients", |e| {
            let parameters: Vec<Parameter> = parameters.iter().map(Parameter::from_abi).collect();
            let ModelGradients { loss, gradients } = e.model_gradients(&parameters, windows.as_slice())?;
            Ok(AbiModelGradients { loss, gradients: gradients.into_iter().map(Tensor::into_abi).collect() })
        })
    }
    fn save_block(&mut self, file: RStr<'_>) -> AbiResult<()> {
        self.call_mut("save_block", |e| e.save_block(Path::new(file.as_str())))
    }
    fn restore_block(&mut self, file: RStr<'_>) -> AbiResult<()> {
        self.call_mut("restore_block", |e| e.restore_block(Path::new(file.as_str())))
    }
    fn save_checkpoint(&mut self, directory: RStr<'_>) -> AbiResult<RString> {
        self.call_mut("save_checkpoint", |e| json(&e.save_checkpoint(Path::new(directory.as_str()))?))
    }
}

impl<R: Runner> AbiRunner for Guarded<R> {
    fn model(&self) -> AbiResult<RString> {
        self.call("model", |r| json(&r.model()))
    }
    fn encode(&self, texts: RSlice<'_, RString>, add_special: bool) -> AbiResult<RVec<RVec<u32>>> {
        self.call("encode", |r| Ok(sequences(r.encode(&strings(&texts), add_special)?)))
    }
    fn decode(&self, tokens: RSlice<'_, u32>) -> AbiResult<RString> {
        self.call("decode", |r| Ok(r.decode(tokens.as_slice())?.into()))
    }
    fn score(&mut self, requests: RSlice<'_, AbiScoreRequest>) -> AbiResult<RVec<AbiScore>> {
        self.call_mut("score", |r| {
            let requests: Vec<ScoreRequest> = requests
                .iter()
                .map(|q| ScoreRequest { context: q.context.to_vec(), continuation: q.continuation.to_vec() })
                .collect();
            Ok(r.score(&requests)?
                .into_iter()
                .map(|s| AbiScore {
                    log_likelihood: s.log_likelihood,
                    greedy: s.greedy,
                    truncated: s.truncated,
                    token_log_likelihoods: s.token_log_likelihoods.into(),
                })
                .collect())
        })
    }
    fn generate(
        &mut self,
        prompts: RSlice<'_, RVec<u32>>,
        max_new_tokens: u32,
        stop: RSlice<'_, u32>,
    ) -> AbiResult<RVec<RVec<u32>>> {
        self.call_mut("generate", |r| {
            Ok(sequences(r.generate(&tokens(&prompts), max_new_tokens, stop.as_slice())?))
        })
    }
    fn profile(&mut self, workload: RStr<'_>) -> AbiResult<RString> {
        self.call_mut("profile", |r| json(&r.profile(&parse::<Workload>("workload", workload.as_str())?)?))
    }
}

fn absent<T>(id: &str, role: &str) -> AbiResult<T> {
    error_to_abi(Err(Error::unsupported(format!("plugin `{id}` has no {role} role"))))
}

extern "C" fn method_descriptor<M: Method>() -> AbiResult<RString> {
    error_to_abi(catch("descriptor", || {
        let mut descriptor = M::descriptor();
        descriptor.roles = vec![role::<M::Options>("method")];
        json(&descriptor)
    }))
}

extern "C" fn method_options<M: Method>(role: RStr<'_>, options: RStr<'_>) -> AbiResult<RString> {
    match role.as_str() {
        "method" => error_to_abi(catch("normalize_options", || normalize::<M::Options>(options.as_str()))),
        other => absent(&M::descriptor().id, other),
    }
}

extern "C" fn new_method<M: Method>(options: RStr<'_>, host: AbiHostArc) -> AbiResult<AbiMethodBox> {
    error_to_abi(catch("new_method", || {
        let host = Host::from_abi(host);
        let method = M::new(parse("options", options.as_str())?, &host)?;
        let adapter = Guarded::new(MethodAdapter { method, host });
        Ok(AbiMethod_TO::from_ptr(RBox::new(adapter), TD_Opaque))
    }))
}

extern "C" fn no_method(_: RStr<'_>, _: AbiHostArc) -> AbiResult<AbiMethodBox> {
    absent("backend", "method")
}

extern "C" fn no_engine(_: RStr<'_>, _: RStr<'_>, _: AbiHostArc) -> AbiResult<AbiEngineBox> {
    absent("this plugin", "engine")
}

extern "C" fn no_runner(_: RStr<'_>, _: RStr<'_>, _: AbiHostArc) -> AbiResult<AbiRunnerBox> {
    absent("this plugin", "runner")
}

/// The root module of a method.
pub fn method_root<M: Method>() -> PluginRootRef {
    PluginRoot {
        descriptor: method_descriptor::<M>,
        normalize_options: method_options::<M>,
        new_method: new_method::<M>,
        open_engine: no_engine,
        open_runner: no_runner,
    }
    .leak_into_prefix()
}

/// A backend: its descriptor, and the roles it has. Made by `export_backend!`.
pub trait Backend: 'static {
    /// What the backend says of itself.
    fn descriptor() -> Descriptor;
    /// Its engine, or [`NoEngine`].
    type Engine: EngineRole;
    /// Its runner, or [`NoRunner`].
    type Runner: RunnerRole;
}

/// An engine, or none.
pub trait EngineRole {
    /// Its options, if it exists.
    fn role() -> Option<RoleDescriptor>;
    /// Completes its options.
    fn normalize(options: &str) -> Result<RString>;
    /// The function of the root module.
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiEngineBox>;
}

/// A runner, or none.
pub trait RunnerRole {
    /// Its options, if it exists.
    fn role() -> Option<RoleDescriptor>;
    /// Completes its options.
    fn normalize(options: &str) -> Result<RString>;
    /// The function of the root module.
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiRunnerBox>;
}

/// Stands for the engine of a backend that has none.
pub struct NoEngine;
/// Stands for the runner of a backend that has none.
pub struct NoRunner;

impl EngineRole for NoEngine {
    fn role() -> Option<RoleDescriptor> {
        None
    }
    fn normalize(_: &str) -> Result<RString> {
        Err(Error::unsupported("the backend has no engine role"))
    }
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiEngineBox> = no_engine;
}

impl RunnerRole for NoRunner {
    fn role() -> Option<RoleDescriptor> {
        None
    }
    fn normalize(_: &str) -> Result<RString> {
        Err(Error::unsupported("the backend has no runner role"))
    }
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiRunnerBox> = no_runner;
}

extern "C" fn open_engine<E: Engine>(
    model: RStr<'_>,
    options: RStr<'_>,
    host: AbiHostArc,
) -> AbiResult<AbiEngineBox> {
    error_to_abi(catch("open_engine", || {
        let options = parse("options", options.as_str())?;
        let engine = E::open(Path::new(model.as_str()), options, &Host::from_abi(host))?;
        Ok(engine_box(engine))
    }))
}

/// An engine of this very program behind the ABI, with panics caught as in a plugin.
pub(crate) fn engine_box<E: Engine>(engine: E) -> AbiEngineBox {
    AbiEngine_TO::from_ptr(RBox::new(Guarded::new(engine)), TD_Opaque)
}

extern "C" fn open_runner<R: Runner>(
    model: RStr<'_>,
    options: RStr<'_>,
    host: AbiHostArc,
) -> AbiResult<AbiRunnerBox> {
    error_to_abi(catch("open_runner", || {
        let options = parse("options", options.as_str())?;
        let runner = R::open(Path::new(model.as_str()), options, &Host::from_abi(host))?;
        Ok(AbiRunner_TO::from_ptr(RBox::new(Guarded::new(runner)), TD_Opaque))
    }))
}

impl<E: Engine> EngineRole for E {
    fn role() -> Option<RoleDescriptor> {
        Some(role::<E::Options>("engine"))
    }
    fn normalize(options: &str) -> Result<RString> {
        normalize::<E::Options>(options)
    }
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiEngineBox> = open_engine::<E>;
}

impl<R: Runner> RunnerRole for R {
    fn role() -> Option<RoleDescriptor> {
        Some(role::<R::Options>("runner"))
    }
    fn normalize(options: &str) -> Result<RString> {
        normalize::<R::Options>(options)
    }
    const OPEN: extern "C" fn(RStr<'_>, RStr<'_>, AbiHostArc) -> AbiResult<AbiRunnerBox> = open_runner::<R>;
}

extern "C" fn backend_descriptor<B: Backend>() -> AbiResult<RString> {
    error_to_abi(catch("descriptor", || {
        let mut descriptor = B::descriptor();
        descriptor.roles = B::Engine::role().into_iter().chain(B::Runner::role()).collect();
        json(&descriptor)
    }))
}

extern "C" fn backend_options<B: Backend>(role: RStr<'_>, options: RStr<'_>) -> AbiResult<RString> {
    error_to_abi(catch("normalize_options", || match role.as_str() {
        "engine" => B::Engine::normalize(options.as_str()),
        "runner" => B::Runner::normalize(options.as_str()),
        other => Err(Error::unsupported(format!("a backend has no {other} role"))),
    }))
}

/// The root module of a backend.
pub fn backend_root<B: Backend>() -> PluginRootRef {
    PluginRoot {
        descriptor: backend_descriptor::<B>,
        normalize_options: backend_options::<B>,
        new_method: no_method,
        open_engine: B::Engine::OPEN,
        open_runner: B::Runner::OPEN,
    }
    .leak_into_prefix()
}

/// Exports the header and the root module. Used by the other macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_root {
    ($root:expr) => {
        const _: () = {
            use $crate::abi_stable::library::{
                __call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult,
            };
            type Root = $crate::abi::root::PluginRootRef;

            fn load() -> Root {
                $root
            }

            extern "C" fn load_erased() -> RootModuleResult {
                __call_root_module_loader(load)
            }

            #[allow(unsafe_code)]
            #[unsafe(export_name = "llmcb_plugin_header")]
            static HEADER: $crate::abi::header::PluginHeader = $crate::abi::header::PluginHeader::CURRENT;

            // The name under which abi_stable looks for the root module.
            #[allow(unsafe_code)]
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static ROOT: LibHeader = {
                // SAFETY: `load_erased` returns the module that `load` made, which is of type `Root`.
                unsafe { LibHeader::from_constructor::<Root>(load_erased, CheckTypeLayout::Yes) }
            };
        };
    };
}

/// Makes the crate a method plugin: `export_method!(MyMethod);`, once per crate of type `cdylib`.
#[macro_export]
macro_rules! export_method {
    ($method:ty) => {
        $crate::__export_root!($crate::export::method_root::<$method>());
    };
}

/// Makes the crate a backend plugin, once per crate of type `cdylib`:
/// `export_backend!(descriptor = my_descriptor, engine = MyEngine, runner = MyRunner);`, or with only one of the
/// two roles.
#[macro_export]
macro_rules! export_backend {
    (descriptor = $descriptor:path, engine = $engine:ty, runner = $runner:ty $(,)?) => {
        const _: () = {
            struct Exported;
            impl $crate::export::Backend for Exported {
                fn descriptor() -> $crate::sdk::Descriptor {
                    $descriptor()
                }
                type Engine = $engine;
                type Runner = $runner;
            }
            $crate::__export_root!($crate::export::backend_root::<Exported>());
        };
    };
    (descriptor = $descriptor:path, engine = $engine:ty $(,)?) => {
        $crate::export_backend!(
            descriptor = $descriptor,
            engine = $engine,
            runner = $crate::export::NoRunner
        );
    };
    (descriptor = $descriptor:path, runner = $runner:ty $(,)?) => {
        $crate::export_backend!(
            descriptor = $descriptor,
            engine = $crate::export::NoEngine,
            runner = $runner
        );
    };
}
