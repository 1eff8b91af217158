//! Tensors that cross the boundary without a copy.

use std::ffi::c_void;
use std::sync::Arc;

use abi_stable::std_types::RVec;
use half::{bf16, f16};

use super::error::{Error, Result};
use crate::abi::tensor::{AbiDType, AbiDevice, AbiTensor};

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Unsigned byte.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
}

impl DType {
    fn to_abi(self) -> AbiDType {
        let (code, bits) = match self {
            DType::F32 => (2, 32),
            DType::F64 => (2, 64),
            DType::F16 => (2, 16),
            DType::BF16 => (4, 16),
            DType::U8 => (1, 8),
            DType::I32 => (0, 32),
            DType::U32 => (1, 32),
        };
        AbiDType { code, bits, lanes: 1 }
    }

    fn from_abi(dtype: AbiDType) -> Option<DType> {
        [DType::F32, DType::F64, DType::F16, DType::BF16, DType::U8, DType::I32, DType::U32]
            .into_iter()
            .find(|d| d.to_abi() == dtype)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Rust types that can be elements of a [`Tensor`].
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The matching element type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, u8 => U8, i32 => I32, u32 => U32);

/// An immutable tensor in memory that one side of the boundary owns and both may read.
pub struct Tensor(AbiTensor);

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {:?} {:?}", self.dtype(), self.shape())
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn drop_owner<T>(owner: *mut c_void) {
    // SAFETY: `owner` was made by `Arc::into_raw` on an `Arc<T>` in `from_arc`, and is released once.
    drop(unsafe { Arc::from_raw(owner.cast::<T>().cast_const()) });
}

impl Tensor {
    /// A tensor that owns its values. Errors when the shape does not hold exactly `values.len()` elements.
    pub fn from_vec<T: Element>(values: Vec<T>, shape: &[usize]) -> Result<Tensor> {
        Self::from_arc(Arc::new(values), shape)
    }

    /// A tensor that shares values with others; nothing is copied.
    pub fn from_arc<T: Element>(values: Arc<Vec<T>>, shape: &[usize]) -> Result<Tensor> {
        let expected = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if expected != Some(values.len()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {shape:?} cannot hold {} values",
                values.len()
            )));
        }
        let mut strides = vec![1i64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * (shape[axis] as i64).max(1);
        }
        let data = values.as_ptr().cast_mut().cast::<c_void>();
        Ok(Tensor(AbiTensor {
            data,
            byte_offset: 0,
            device: AbiDevice { kind: 1, index: 0 },
            dtype: T::DTYPE.to_abi(),
            shape: shape.iter().map(|d| *d as i64).collect::<RVec<_>>(),
            strides: strides.into_iter().collect::<RVec<_>>(),
            owner: Arc::into_raw(values).cast_mut().cast::<c_void>(),
            deleter: Some(drop_owner::<Vec<T>>),
        }))
    }

    pub(crate) fn into_abi(self) -> AbiTensor {
        self.0
    }

    /// Takes a tensor from the other side, after checking that it describes readable memory.
    pub(crate) fn from_abi(tensor: AbiTensor) -> Result<Tensor> {
        if DType::from_abi(tensor.dtype).is_none() {
            return Err(Error::failed(format!(
                "a tensor came with the unknown element type {:?}",
                tensor.dtype
            )));
        }
        if tensor.device.kind != 1 {
            return Err(Error::unsupported(format!(
                "a tensor came on device {:?}; only CPU memory is read",
                tensor.device
            )));
        }
        if tensor.shape.len() != tensor.strides.len() || tensor.shape.iter().any(|d| *d < 0) {
            return Err(Error::failed(format!(
                "a tensor came with shape {:?} and strides {:?}",
                tensor.shape, tensor.strides
            )));
        }
        let elements = tensor.shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d));
        match elements {
            None => {
                return Err(Error::failed(format!("a tensor came with an absurd shape {:?}", tensor.shape)));
            }
            Some(n) if n > 0 && tensor.data.is_null() => {
                return Err(Error::failed(format!("a tensor of shape {:?} came without data", tensor.shape)));
            }
            Some(_) => {}
        }
        let align = usize::from(tensor.dtype.bits / 8);
        let address = (tensor.data as usize).wrapping_add(tensor.byte_offset as usize);
        if !address.is_multiple_of(align) {
            return Err(Error::failed("a tensor came with misaligned data"));
        }
        Ok(Tensor(tensor))
    }

    /// Length of each dimension, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        self.0.shape.iter().map(|d| *d as usize).collect()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.shape.iter().product::<i64>() as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        // Both constructors admit known types only.
        DType::from_abi(self.0.dtype).unwrap_or(DType::F32)
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1i64;
        for (d, s) in self.0.shape.iter().zip(self.0.strides.iter()).rev() {
            if *d != 1 && *s != expected {
                return false;
            }
            expected = expected.saturating_mul(*d);
        }
        true
    }

    /// The elements in row-major order, without a copy. Errors when the type differs or there are gaps; use
    /// [`Tensor::to_f32`] for any layout.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if self.dtype() != T::DTYPE {
            return Err(Error::invalid(format!(
                "a tensor holds {:?}, {:?} was asked for",
                self.dtype(),
                T::DTYPE
            )));
        }
        if self.is_empty() {
            return Ok(&[]);
        }
        if !self.is_contiguous() {
            return Err(Error::invalid("a tensor is not contiguous; copy it with to_f32"));
        }
        #[allow(unsafe_code)]
        // SAFETY: the side that made the tensor promises that shape, strides and type describe its memory, which
        // lives and does not change until the deleter runs; type, alignment and layout were checked.
        let slice = unsafe {
            std::slice::from_raw_parts(
                self.0.data.cast::<u8>().add(self.0.byte_offset as usize).cast::<T>(),
                self.len(),
            )
        };
        Ok(slice)
    }

    /// The elements as `f32` in row-major order, from any float type and any strides.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match self.dtype() {
            DType::F32 => self.gather::<f32>(|x| x),
            DType::F64 => self.gather::<f64>(|x| x as f32),
            DType::F16 => self.gather::<f16>(f16::to_f32),
            DType::BF16 => self.gather::<bf16>(bf16::to_f32),
            other => Err(Error::invalid(format!("a tensor of {other:?} has no float values"))),
        }
    }

    fn gather<T: Element>(&self, convert: impl Fn(T) -> f32) -> Result<Vec<f32>> {
        if self.is_contiguous() {
            return Ok(self.as_slice::<T>()?.iter().map(|x| convert(*x)).collect());
        }
        let shape = self.shape();
        let mut index = vec![0usize; shape.len()];
        let mut values = Vec::with_capacity(self.len());
        for _ in 0..self.len() {
            let offset: i64 = index.iter().zip(self.0.strides.iter()).map(|(i, s)| *i as i64 * s).sum();
            #[allow(unsafe_code)]
            // SAFETY: every index is below its dimension, so by the maker's promise the element is in its memory.
            let value = unsafe {
                let first = self.0.data.cast::<u8>().add(self.0.byte_offset as usize).cast::<T>();
                *first.offset(offset as isize)
            };
            values.push(convert(value));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }
}
