//! TVM's C interface, as `tvm/ffi/c_api.h` of version 0.1 declares it: values that are tagged, and functions from values to a value.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use llmcb_plugin_api::sdk::{Error, Result};

/// The interface that this was written for. Headers of objects may differ in another.
const MAJOR_MINOR: (u32, u32) = (0, 1);

/// Tags of values.
mod tag {
    pub(super) const NONE: i32 = 0;
    pub(super) const INT: i32 = 1;
    pub(super) const OPAQUE: i32 = 4;
    pub(super) const DATA_TYPE: i32 = 5;
    pub(super) const DEVICE: i32 = 6;
    pub(super) const RAW_TEXT: i32 = 8;
    pub(super) const SMALL_TEXT: i32 = 11;
    /// From here on, values are objects with counted references.
    pub(super) const OBJECT: i32 = 64;
    pub(super) const TEXT: i32 = 65;
    pub(super) const ERROR: i32 = 67;
    pub(super) const FUNCTION: i32 = 68;
    pub(super) const TENSOR: i32 = 70;
}

/// A value, or a view of one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Any {
    tag: i32,
    small_length: u32,
    bits: u64,
}

const NOTHING: Any = Any { tag: tag::NONE, small_length: 0, bits: 0 };

/// Bytes that something else owns.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bytes {
    data: *const c_char,
    size: usize,
}

/// What stands before the contents of an object.
#[repr(C)]
struct Header {
    references: u64,
    tag: i32,
    padding: u32,
    deleter: *const c_void,
}

/// The contents of an error, as far as they are read here.
#[repr(C)]
struct Raised {
    kind: Bytes,
    message: Bytes,
}

/// The beginning of DLPack's managed tensor.
#[repr(C)]
struct Managed {
    data: *mut c_void,
    device: [i32; 2],
    dimensions: i32,
    data_type: [u8; 4],
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

#[repr(C)]
#[derive(Default)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

type Object = *mut c_void;

/// TVM, loaded. Never unloaded: its threads and what it registers live as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Tvm {
    get_global: unsafe extern "C" fn(*const Bytes, *mut Object) -> c_int,
    call: unsafe extern "C" fn(Object, *mut Any, i32, *mut Any) -> c_int,
    forget: unsafe extern "C" fn(Object) -> c_int,
    take_error: unsafe extern "C" fn(*mut Object),
    to_dlpack: unsafe extern "C" fn(Object, *mut *mut Managed) -> c_int,
}

/// A device, in DLPack's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub kind: i32,
    pub index: i32,
}

/// The processor.
pub(crate) const PROCESSOR: Place = Place { kind: 1, index: 0 };
/// NVIDIA's GPUs.
pub(crate) const CUDA: Place = Place { kind: 2, index: 0 };

/// An argument of a function.
#[derive(Clone, Copy)]
pub(crate) enum Argument<'a> {
    None,
    Int(i64),
    Text(&'a CStr),
    Value(&'a Value),
    Place(Place),
    /// The type of token ids, integers of 32 bits.
    Int32,
    /// Memory that the function reads, or writes, while it runs.
    Memory(*mut c_void),
}

impl Argument<'_> {
    fn view(self) -> Any {
        let of = |tag: i32, bits: u64| Any { tag, small_length: 0, bits };
        match self {
            Argument::None => NOTHING,
            Argument::Int(n) => of(tag::INT, n.cast_unsigned()),
            Argument::Text(text) => of(tag::RAW_TEXT, text.as_ptr() as u64),
            Argument::Value(value) => value.any,
            Argument::Place(place) => {
                let (kind, index) = (place.kind.cast_unsigned(), place.index.cast_unsigned());
                of(tag::DEVICE, u64::from(kind) | u64::from(index) << 32)
            }
            // Code of integers, bits, lanes.
            Argument::Int32 => of(tag::DATA_TYPE, 32 << 8 | 1 << 16),
            Argument::Memory(pointer) => of(tag::OPAQUE, pointer as u64),
        }
    }
}

/// A value of TVM's: a number, a text, a function, a tensor, a module.
pub(crate) struct Value {
    any: Any,
    tvm: Tvm,
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.any.tag >= tag::OBJECT {
            #[allow(unsafe_code)]
            // SAFETY: this holds one reference of the object, and is not used again.
            unsafe {
                (self.tvm.forget)(self.any.bits as Object);
            }
        }
    }
}

impl Tvm {
    /// Loads the interface (`libtvm_ffi.so`), then the runtimes that register their functions with it.
    ///
    /// # Errors
    /// A file cannot be loaded, or has another interface.
    pub(crate) fn load(interface: &Path, runtimes: &[&Path]) -> Result<Self> {
        let open = |file: &Path| {
            #[allow(unsafe_code)]
            // SAFETY: loading runs the file's constructors; the user named the installation, and it is trusted like a plugin. What it
            // registers is looked up by files that are loaded later, so its symbols are shared.
            let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) };
            library
                .map(|library| &*Box::leak(Box::new(library)))
                .map_err(|e| Error::invalid(format!("{}: cannot be loaded: {e}", file.display())))
        };
        let library = open(interface)?;
        macro_rules! function {
            ($name:literal) => {{
                #[allow(unsafe_code)]
                // SAFETY: the header declares a function of this type under this name.
                let symbol = unsafe { library.get($name.as_bytes()) };
                *symbol.map_err(|e| {
                    Error::invalid(format!("{}: not TVM's interface: {e}", interface.display()))
                })?
            }};
        }
        let version: unsafe extern "C" fn(*mut Version) = function!("TVMFFIGetVersion");
        let mut found = Version::default();
        #[allow(unsafe_code)]
        // SAFETY: it fills three numbers in.
        unsafe {
            version(&raw mut found);
        }
        if (found.major, found.minor) != MAJOR_MINOR {
            return Err(Error::unsupported(format!(
                "{}: TVM's interface is {}.{}.{}, this plugin knows {}.{}",
                interface.display(),
                found.major,
                found.minor,
                found.patch,
                MAJOR_MINOR.0,
                MAJOR_MINOR.1
            )));
        }
        let tvm = Tvm {
            get_global: function!("TVMFFIFunctionGetGlobal"),
            call: function!("TVMFFIFunctionCall"),
            forget: function!("TVMFFIObjectDecRef"),
            take_error: function!("TVMFFIErrorMoveFromRaised"),
            to_dlpack: function!("TVMFFITensorToDLPack"),
        };
        for runtime in runtimes {
            open(runtime)?;
        }
        Ok(tvm)
    }

    fn own(self, any: Any) -> Value {
        Value { any, tvm: self }
    }

    /// What was raised last, in its first line.
    fn raised(self, what: &str) -> Error {
        let mut object: Object = std::ptr::null_mut();
        #[allow(unsafe_code)]
        // SAFETY: it gives the error that was raised on this thread, or null.
        unsafe {
            (self.take_error)(&raw mut object);
        }
        if object.is_null() {
            return Error::failed(format!("TVM could not run {what}, and did not say why"));
        }
        let error = self.own(Any { tag: tag::ERROR, small_length: 0, bits: object as u64 });
        #[allow(unsafe_code)]
        // SAFETY: an error's contents stand behind its header and live as long as it.
        let (kind, message) = unsafe {
            let raised = &*object.cast::<u8>().add(size_of::<Header>()).cast::<Raised>();
            (text(raised.kind), text(raised.message))
        };
        drop(error);
        eprintln!("TVM: {what}: {kind}: {message}");
        let first = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let short: String = first.chars().take(300).collect();
        Error::failed(format!("TVM could not run {what}: {kind}: {short}"))
    }

    /// A function that the runtime registers.
    ///
    /// # Errors
    /// It registers none of this name.
    pub(crate) fn global(self, name: &str) -> Result<Value> {
        let bytes = Bytes { data: name.as_ptr().cast(), size: name.len() };
        let mut object: Object = std::ptr::null_mut();
        #[allow(unsafe_code)]
        // SAFETY: the name outlives the call.
        let code = unsafe { (self.get_global)(&raw const bytes, &raw mut object) };
        if code != 0 || object.is_null() {
            return Err(Error::unsupported(format!(
                "this TVM has no function {name}; it is another version"
            )));
        }
        Ok(self.own(Any { tag: tag::FUNCTION, small_length: 0, bits: object as u64 }))
    }

    /// Calls a function that the runtime registers.
    ///
    /// # Errors
    /// There is none, or what it raises.
    pub(crate) fn run(self, name: &str, arguments: &[Argument<'_>]) -> Result<Value> {
        self.global(name)?.call(name, arguments)
    }

    /// A shape, which is how TVM passes lists of numbers.
    ///
    /// # Errors
    /// TVM has none.
    pub(crate) fn shape(self, numbers: &[i64]) -> Result<Value> {
        let arguments: Vec<Argument<'_>> = numbers.iter().map(|n| Argument::Int(*n)).collect();
        self.run("ffi.Shape", &arguments)
    }
}

fn text(bytes: Bytes) -> String {
    if bytes.data.is_null() {
        return String::new();
    }
    #[allow(unsafe_code)]
    // SAFETY: TVM's byte arrays point at as many bytes as they say.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.data.cast::<u8>(), bytes.size) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text that ends in a zero.
///
/// # Errors
/// It has a zero in it.
pub(crate) fn terminated(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("a name with a zero in it"))
}

impl Value {
    /// Whether it is nothing.
    pub(crate) fn is_none(&self) -> bool {
        self.any.tag == tag::NONE
    }

    /// Calls it, a function; `what` names it in errors.
    ///
    /// # Errors
    /// What it raises.
    pub(crate) fn call(&self, what: &str, arguments: &[Argument<'_>]) -> Result<Value> {
        if self.any.tag != tag::FUNCTION {
            return Err(Error::failed(format!("{what} is no function")));
        }
        let mut views: Vec<Any> = arguments.iter().map(|argument| argument.view()).collect();
        let count = i32::try_from(views.len()).map_err(|_| Error::invalid("too many arguments"))?;
        let mut result = NOTHING;
        #[allow(unsafe_code)]
        // SAFETY: it holds a function; the views outlive the call, and what they point at does too. The result starts as nothing.
        let code =
            unsafe { (self.tvm.call)(self.any.bits as Object, views.as_mut_ptr(), count, &raw mut result) };
        match code {
            0 => Ok(self.tvm.own(result)),
            _ => Err(self.tvm.raised(what)),
        }
    }

    /// A function of it, a module; nothing where it has none of this name.
    ///
    /// # Errors
    /// It is no module.
    pub(crate) fn function(&self, name: &str) -> Result<Option<Value>> {
        let name_text = terminated(name.as_bytes())?;
        let arguments = [Argument::Value(self), Argument::Text(&name_text), Argument::Int(1)];
        let found = self.tvm.run("ffi.ModuleGetFunction", &arguments)?;
        Ok((!found.is_none()).then_some(found))
    }

    /// An item of it, a list.
    ///
    /// # Errors
    /// It has none at this place.
    pub(crate) fn item(&self, at: i64) -> Result<Value> {
        self.tvm.run("ffi.ArrayGetItem", &[Argument::Value(self), Argument::Int(at)])
    }

    /// Its number.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn int(&self) -> Result<i64> {
        match self.any.tag {
            tag::INT => Ok(self.any.bits.cast_signed()),
            other => Err(Error::failed(format!("TVM gave a value of type {other} in place of a number"))),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn text(&self) -> Result<String> {
        match self.any.tag {
            tag::SMALL_TEXT => {
                let bytes = self.any.bits.to_ne_bytes();
                let length = (self.any.small_length as usize).min(bytes.len());
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            tag::TEXT => {
                #[allow(unsafe_code)]
                // SAFETY: a text's bytes are told behind its header and live as long as it.
                let bytes = unsafe { *(self.any.bits as *const u8).add(size_of::<Header>()).cast::<Bytes>() };
                Ok(text(bytes))
            }
            other => Err(Error::failed(format!("TVM gave a value of type {other} in place of a text"))),
        }
    }

    /// The shape of it, a tensor.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn dimensions(&self) -> Result<Vec<usize>> {
        if self.any.tag != tag::TENSOR {
            return Err(Error::failed(format!(
                "TVM gave a value of type {} in place of a tensor",
                self.any.tag
            )));
        }
        let mut managed: *mut Managed = std::ptr::null_mut();
        #[allow(unsafe_code)]
        // SAFETY: it holds a tensor. The view has a shape of as many numbers as it has dimensions,
        // until it is given back.
        unsafe {
            if (self.tvm.to_dlpack)(self.any.bits as Object, &raw mut managed) != 0 || managed.is_null() {
                return Err(self.tvm.raised("a tensor's shape"));
            }
            let count = usize::try_from((*managed).dimensions).unwrap_or(0);
            let shape = match count {
                0 => Vec::new(),
                _ => std::slice::from_raw_parts((*managed).shape, count).to_vec(),
            };
            if let Some(give_back) = (*managed).deleter {
                give_back(managed);
            }
            Ok(shape.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect())
        }
    }

    /// The numbers of it, a tensor in single precision.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(crate) fn numbers(&self) -> Result<Vec<f32>> {
        let count: usize = self.dimensions()?.iter().product();
        let mut numbers = vec![0.0_f32; count];
        let bytes = i64::try_from(count * size_of::<f32>()).unwrap_or(i64::MAX);
        let arguments =
            [Argument::Value(self), Argument::Memory(numbers.as_mut_ptr().cast()), Argument::Int(bytes)];
        self.tvm.run("runtime.TVMTensorCopyToBytes", &arguments)?;
        Ok(numbers)
    }
}
