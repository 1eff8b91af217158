//! DLPack-shaped tensors: data, device, type, shape, strides, offset, and the owner's deleter.

use std::ffi::c_void;

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};

/// Element type, with DLPack's codes.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbiDType {
    /// 0 signed integer, 1 unsigned integer, 2 float, 4 bfloat (DLPack's `DLDataTypeCode`).
    pub code: u8,
    /// Bits per lane.
    pub bits: u8,
    /// Lanes per element, 1 for all types in use.
    pub lanes: u16,
}

/// Where the data lives, with DLPack's numbers.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbiDevice {
    /// 1 CPU, 2 CUDA (DLPack's `DLDeviceType`).
    pub kind: i32,
    /// Ordinal of the device.
    pub index: i32,
}

/// A tensor. It owns a share of its data: dropping it calls the deleter of the side that allocated it.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiTensor {
    /// Start of the allocation; may be null when there are no elements.
    pub data: *mut c_void,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
    /// Where the data lives.
    pub device: AbiDevice,
    /// Element type.
    pub dtype: AbiDType,
    /// Length of each dimension, outermost first.
    pub shape: RVec<i64>,
    /// Distance between neighbours along each dimension, in elements.
    pub strides: RVec<i64>,
    /// Handle for `deleter`.
    pub owner: *mut c_void,
    /// Releases `owner`; called exactly once, from any thread.
    pub deleter: Option<unsafe extern "C" fn(*mut c_void)>,
}

impl Drop for AbiTensor {
    fn drop(&mut self) {
        if let Some(deleter) = self.deleter.take() {
            // SAFETY: `owner` came with `deleter` from the side that made the tensor, and `take` above makes this
            // the only call.
            unsafe {
                deleter(self.owner);
            }
        }
    }
}

// SAFETY: the contract of `AbiTensor` demands data that is immutable while shared, and a deleter that any thread
// may call; the SDK's constructors only accept owners that are `Send + Sync`.
unsafe impl Send for AbiTensor {}
// SAFETY: as above; nothing in the type allows mutation of the data.
unsafe impl Sync for AbiTensor {}

/// A tensor with the name of the parameter it belongs to.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiNamedTensor {
    /// Name within the block, for example `self_attn.q_proj`.
    pub name: RString,
    /// Its values.
    pub tensor: AbiTensor,
}
