//! Stands in for TVM: its C interface (`tvm/ffi/c_api.h` 0.1), the functions of its runtime that a compiled model is run with, and a model whose
//! logits depend on all tokens that a sequence holds. A model library is a text here, the metadata that `_metadata` gives. As in TVM, keys and
//! values have pages, and no more tokens fit. `LLMCB_STAND_IN` makes it do one wrong thing.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::rc::Rc;

const PAGE: usize = 16;
const VOCABULARY: usize = 512;

#[repr(C)]
#[derive(Clone, Copy)]
struct Any {
    tag: i32,
    small: u32,
    bits: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Bytes {
    data: *const u8,
    size: usize,
}

const NOTHING: Any = Any { tag: 0, small: 0, bits: 0 };

type Function = Rc<dyn Fn(&[Any]) -> Result<Any, String>>;

/// What sequences hold, and what a pass that has begun will add.
struct Cache {
    pages: usize,
    sequences: HashMap<i64, Vec<u32>>,
    pass: Vec<(i64, usize)>,
}

enum Content {
    Text,
    Function(Function),
    Shape(Vec<i64>),
    Array(Vec<Any>),
    Tensor(Vec<i64>, RefCell<Vec<u32>>),
    Cache(RefCell<Cache>),
    Module(String),
}

/// An object: the header, then texts where errors and texts have theirs.
#[repr(C)]
struct Object {
    references: u64,
    tag: i32,
    padding: u32,
    deleter: *const c_void,
    texts: [Bytes; 2],
    content: Content,
}

fn does(what: &str) -> bool {
    std::env::var("LLMCB_STAND_IN").is_ok_and(|mode| mode == what)
}

/// Objects are never freed: a test's process is short.
fn object(tag: i32, texts: [&str; 2], content: Content) -> Any {
    let texts = texts.map(|text| {
        let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
        Bytes { data: text.as_ptr(), size: text.len() }
    });
    let made = Object { references: 1, tag, padding: 0, deleter: std::ptr::null(), texts, content };
    Any { tag, small: 0, bits: std::ptr::from_mut(Box::leak(Box::new(made))) as u64 }
}

fn content(any: &Any) -> &'static Content {
    assert!(any.tag >= 64, "a value of type {} in place of an object", any.tag);
    // SAFETY: values of such types were made by `object`, and live for ever.
    unsafe { &(*(any.bits as *const Object)).content }
}

fn function(run: impl Fn(&[Any]) -> Result<Any, String> + 'static) -> Any {
    object(68, [""; 2], Content::Function(Rc::new(run)))
}

fn text(any: &Any) -> String {
    match any.tag {
        // SAFETY: texts that are passed end in a zero.
        8 => unsafe { CStr::from_ptr(any.bits as *const c_char) }.to_string_lossy().into_owned(),
        tag => panic!("a value of type {tag} in place of a text"),
    }
}

fn int(any: &Any) -> i64 {
    assert_eq!(any.tag, 1, "a number");
    any.bits.cast_signed()
}

fn number(n: usize) -> Any {
    Any { tag: 1, small: 0, bits: n as u64 }
}

fn shape(any: &Any) -> &'static [i64] {
    match content(any) {
        Content::Shape(numbers) => numbers,
        _ => panic!("no shape"),
    }
}

fn tensor(any: &Any) -> (&'static [i64], &'static RefCell<Vec<u32>>) {
    match content(any) {
        Content::Tensor(shape, numbers) => (shape, numbers),
        _ => panic!("no tensor"),
    }
}

fn new_tensor(shape: &[i64], numbers: Vec<u32>) -> Any {
    assert_eq!(shape.iter().product::<i64>(), numbers.len() as i64);
    object(70, [""; 2], Content::Tensor(shape.to_vec(), RefCell::new(numbers)))
}

fn cache(any: &Any) -> &'static RefCell<Cache> {
    match content(any) {
        Content::Cache(cache) => cache,
        _ => panic!("no keys and values"),
    }
}

fn logits_after(tokens: &[u32]) -> impl Iterator<Item = u32> {
    let hash = |state: u64, n: u64| (state ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let state = tokens.iter().fold(1, |state, token| hash(state, u64::from(*token)));
    (0..VOCABULARY as u64).map(move |n| ((hash(state, n) >> 44) as f32 / 65536.0).to_bits())
}

/// A pass: adds its tokens to what sequences hold, and gives logits after the last of each part, or after each token.
fn pass(embedded: &Any, state: &Any, every: bool) -> Result<Any, String> {
    if does("fails") {
        return Err(
            "Check failed: (err == cudaSuccess) is false: CUDA: out of memory\n  at vm.cc:674".to_owned()
        );
    }
    let mut cache = cache(state).borrow_mut();
    let tokens = tensor(embedded).1.borrow().clone();
    let mut rest = tokens.as_slice();
    let mut rows = Vec::new();
    for (sequence, length) in std::mem::take(&mut cache.pass) {
        let (own, later) = rest.split_at(length);
        rest = later;
        let held = cache.sequences.get_mut(&sequence).ok_or("no such sequence")?;
        for (at, token) in own.iter().enumerate() {
            held.push(*token);
            if every || at + 1 == length {
                rows.extend(logits_after(held));
            }
        }
    }
    assert!(rest.is_empty(), "as many tokens as the pass was begun with");
    let count = rows.len() / VOCABULARY;
    let logits = new_tensor(&[1, count as i64, VOCABULARY as i64], rows);
    Ok(object(71, [""; 2], Content::Array(vec![logits, *state])))
}

fn of_model(name: &str, metadata: &str) -> Option<Any> {
    let metadata = metadata.to_owned();
    Some(match name {
        "vm_load_executable" => function(move |_| Ok(object(73, [""; 2], Content::Module(metadata.clone())))),
        "vm_initialization" => function(|a| {
            assert_eq!(a.iter().map(int).collect::<Vec<_>>(), [1, 0, 2, 1, 0, 2]);
            Ok(NOTHING)
        }),
        "_metadata" => function(move |_| Ok(object(65, [&metadata, ""], Content::Text))),
        "create_tir_paged_kv_cache" => function(|a| {
            let pages = (shape(&a[1])[0] as usize).div_ceil(PAGE);
            let cache = Cache { pages, sequences: HashMap::new(), pass: Vec::new() };
            Ok(object(128, [""; 2], Content::Cache(RefCell::new(cache))))
        }),
        // An embedding is the token itself.
        "embed" => function(|a| {
            let (shape, numbers) = tensor(&a[0]);
            Ok(new_tensor(&[shape[0], 1], numbers.borrow().clone()))
        }),
        "prefill" | "decode" | "batch_decode" => function(|a| pass(&a[0], &a[1], false)),
        "batch_verify" if !does("lacks a function") => function(|a| pass(&a[0], &a[1], true)),
        "batch_prefill" => function(|a| {
            let mut end = 0;
            let lengths: Vec<usize> = cache(&a[2]).borrow().pass.iter().map(|(_, length)| *length).collect();
            let ends = lengths.iter().map(|length| {
                end += length;
                end as u32 - 1
            });
            assert_eq!(ends.collect::<Vec<_>>(), *tensor(&a[1]).1.borrow(), "the last token of each");
            pass(&a[0], &a[2], false)
        }),
        _ => return None,
    })
}

fn of_runtime(name: &str) -> Option<Any> {
    Some(match name {
        "ffi.Shape" => function(|a| Ok(object(69, [""; 2], Content::Shape(a.iter().map(int).collect())))),
        "ffi.Array" => function(|a| Ok(object(71, [""; 2], Content::Array(a.to_vec())))),
        "ffi.ArrayGetItem" => function(|a| match content(&a[0]) {
            Content::Array(items) => Ok(items[int(&a[1]) as usize]),
            _ => Err("no list".to_owned()),
        }),
        "ffi.ModuleLoadFromFile" => function(|a| {
            let file = text(&a[0]);
            let metadata =
                std::fs::read_to_string(&file).map_err(|e| format!("Cannot open libraries: {file}: {e}"))?;
            Ok(object(73, [""; 2], Content::Module(metadata)))
        }),
        "ffi.ModuleGetFunction" => function(|a| match content(&a[0]) {
            Content::Module(metadata) => Ok(of_model(&text(&a[1]), metadata).unwrap_or(NOTHING)),
            _ => Err("no module".to_owned()),
        }),
        "runtime.config_threadpool" | "vm.builtin.tensor_cache.load" | "vm.builtin.tensor_cache.clear" => {
            function(|_| Ok(NOTHING))
        }
        "runtime.NumThreads" => function(|_| Ok(number(1))),
        "vm.builtin.param_array_from_cache_by_name" => {
            function(|_| Ok(object(71, [""; 2], Content::Array(Vec::new()))))
        }
        "vm.builtin.reshape" => function(|a| Ok(new_tensor(shape(&a[1]), tensor(&a[0]).1.borrow().clone()))),
        "runtime.TVMTensorAllocWithScope" => function(|a| {
            let shape = shape(&a[0]);
            assert_eq!((a[1].tag, a[1].bits, a[2].tag), (5, 32 << 8 | 1 << 16, 6), "integers of 32 bits");
            Ok(new_tensor(shape, vec![0; shape.iter().product::<i64>() as usize]))
        }),
        "runtime.TVMTensorCopyFromBytes" => function(|a| {
            let mut numbers = tensor(&a[0]).1.borrow_mut();
            assert_eq!(int(&a[2]) as usize, numbers.len() * 4);
            // SAFETY: the caller has as many bytes there.
            unsafe {
                std::ptr::copy_nonoverlapping(a[1].bits as *const u32, numbers.as_mut_ptr(), numbers.len())
            };
            Ok(NOTHING)
        }),
        "runtime.TVMTensorCopyToBytes" => function(|a| {
            let numbers = tensor(&a[0]).1.borrow();
            assert_eq!(int(&a[2]) as usize, numbers.len() * 4);
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), a[1].bits as *mut u32, numbers.len()) };
            Ok(NOTHING)
        }),
        "vm.builtin.kv_state_add_sequence" => function(|a| {
            let earlier = cache(&a[0]).borrow_mut().sequences.insert(int(&a[1]), Vec::new());
            if earlier.is_some() {
                Err("The sequence is already in the KV cache.".to_owned())
            } else {
                Ok(NOTHING)
            }
        }),
        "vm.builtin.kv_state_begin_forward" => function(|a| {
            let mut cache = cache(&a[0]).borrow_mut();
            cache.pass = shape(&a[1]).iter().copied().zip(shape(&a[2]).iter().map(|n| *n as usize)).collect();
            let added =
                |id: &i64| cache.pass.iter().filter(|(of, _)| of == id).map(|(_, n)| n).sum::<usize>();
            let pages: usize =
                cache.sequences.iter().map(|(id, held)| (held.len() + added(id)).div_ceil(PAGE)).sum();
            if pages > cache.pages {
                return Err("The KV cache is full. No page can be allocated.".to_owned());
            }
            Ok(NOTHING)
        }),
        "vm.builtin.kv_state_end_forward" => function(|a| {
            assert!(cache(&a[0]).borrow().pass.is_empty(), "a pass that was begun is run");
            Ok(NOTHING)
        }),
        "vm.builtin.kv_state_popn" => function(|a| {
            let mut cache = cache(&a[0]).borrow_mut();
            let held = cache.sequences.get_mut(&int(&a[1])).ok_or("no such sequence")?;
            let left = held.len().checked_sub(int(&a[2]) as usize).ok_or("more than it holds")?;
            held.truncate(left);
            Ok(NOTHING)
        }),
        "vm.builtin.kv_state_clear" => function(|a| {
            cache(&a[0]).borrow_mut().sequences.clear();
            Ok(NOTHING)
        }),
        _ => return None,
    })
}

thread_local! {
    static RAISED: RefCell<Option<Any>> = const { RefCell::new(None) };
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFIGetVersion(out: *mut [u32; 3]) {
    let minor = if does("other interface") { 2 } else { 1 };
    // SAFETY: the caller has room for three numbers.
    unsafe { *out = [0, minor, 13] };
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFIFunctionGetGlobal(name: *const c_void, out: *mut *mut c_void) -> c_int {
    // SAFETY: the name is given by its bytes, and there is room for what is found.
    unsafe {
        let name = &*name.cast::<Bytes>();
        let name = std::str::from_utf8(std::slice::from_raw_parts(name.data, name.size)).unwrap_or_default();
        *out = of_runtime(name).map_or(std::ptr::null_mut(), |found| found.bits as *mut c_void);
    }
    0
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFIFunctionCall(
    called: *mut c_void,
    arguments: *const c_void,
    count: i32,
    result: *mut c_void,
) -> c_int {
    // SAFETY: a function of `object`'s, so many arguments, and room for a result.
    unsafe {
        let Content::Function(run) = &(*called.cast::<Object>()).content else { return -1 };
        let arguments: &[Any] = match count {
            0 => &[],
            _ => std::slice::from_raw_parts(arguments.cast(), count as usize),
        };
        match run(arguments) {
            Ok(value) => *result.cast::<Any>() = value,
            Err(message) => {
                let error = object(67, ["InternalError", &message], Content::Text);
                RAISED.with(|raised| *raised.borrow_mut() = Some(error));
                return -1;
            }
        }
    }
    0
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFIObjectDecRef(_: *mut c_void) -> c_int {
    0
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFIErrorMoveFromRaised(out: *mut *mut c_void) {
    let raised = RAISED.with(|raised| raised.borrow_mut().take());
    // SAFETY: there is room for a pointer.
    unsafe { *out = raised.map_or(std::ptr::null_mut(), |error| error.bits as *mut c_void) };
}

/// DLPack's managed tensor, as far as it is read.
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

unsafe extern "C" fn give_back(managed: *mut Managed) {
    // SAFETY: it was made by a box.
    drop(unsafe { Box::from_raw(managed) });
}

/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TVMFFITensorToDLPack(from: *mut c_void, out: *mut *mut c_void) -> c_int {
    // SAFETY: a tensor of `object`'s, and room for a pointer.
    unsafe {
        let Content::Tensor(shape, numbers) = &(*from.cast::<Object>()).content else { return -1 };
        let managed = Managed {
            data: numbers.as_ptr().cast(),
            device: [1, 0],
            dimensions: shape.len() as i32,
            data_type: [2, 32, 1, 0],
            shape: shape.as_ptr(),
            strides: std::ptr::null(),
            byte_offset: 0,
            context: std::ptr::null_mut(),
            deleter: Some(give_back),
        };
        *out = Box::into_raw(Box::new(managed)).cast();
    }
    0
}
