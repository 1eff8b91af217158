//! How large a model is, from the headers of its files or from what is published of it. No weight is read.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::assets::registry::PaperModel;

/// Headers larger than this are not a model's.
const LARGEST_HEADER: u64 = 256 << 20;

/// How large a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Parameters.
    pub parameters: u64,
    /// Blocks; 0 where not known, as with what follows.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Bytes to fetch; 0 for files that are here.
    pub fetch_bytes: u64,
}

impl Size {
    /// The size of a model in a directory or a GGUF file; nothing where the headers do not say.
    pub fn of_files(path: &Path) -> Option<Size> {
        if path.is_file() {
            return gguf(path);
        }
        let mut parameters = 0;
        for entry in std::fs::read_dir(path).ok()?.flatten() {
            let file = entry.path();
            match file.extension().and_then(|end| end.to_str()) {
                Some("safetensors") => parameters += safetensors(&file)?,
                Some("gguf") => return gguf(&file),
                _ => {}
            }
        }
        let config = std::fs::read(path.join("config.json"))
            .ok()
            .and_then(|b| serde_json::from_slice::<Value>(&b).ok());
        // As the families spell it.
        let number = |keys: &[&str]| {
            let config = config.as_ref()?;
            keys.iter().find_map(|key| config[*key].as_u64())
        };
        let number = |keys| number(keys).unwrap_or(0) as usize;
        (parameters > 0).then_some(Size {
            parameters,
            blocks: number(&["num_hidden_layers", "num_layers"]),
            hidden: number(&["hidden_size"]),
            intermediate: number(&["intermediate_size", "ffn_dim", "ffn_hidden_size"]),
            fetch_bytes: 0,
        })
    }

    /// The size of a model that is not here, where it is one of the paper's.
    pub fn published(reference: &str) -> Option<Size> {
        let model = PaperModel::find(reference)?;
        Some(Size {
            parameters: model.parameters,
            blocks: model.blocks,
            hidden: model.hidden,
            intermediate: model.intermediate,
            fetch_bytes: model.bytes,
        })
    }
}

/// Numbers in a safetensors file; of integer codes as many as the words that hold them.
fn safetensors(path: &Path) -> Option<u64> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER {
        return None;
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let count = |tensor: &Value| -> Option<u64> {
        tensor["shape"].as_array()?.iter().try_fold(1_u64, |product, n| product.checked_mul(n.as_u64()?))
    };
    header
        .as_object()?
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .try_fold(0_u64, |sum, (_, tensor)| sum.checked_add(count(tensor)?))
}

/// Reads the header of a GGUF file (versions 2 and 3): its tensors' shapes, and the model's width.
fn gguf(path: &Path) -> Option<Size> {
    let mut file = Gguf(BufReader::new(std::fs::File::open(path).ok()?));
    if file.bytes::<4>()? != *b"GGUF" || !(2..=3).contains(&file.u32()?) {
        return None;
    }
    let (tensors, values) = (file.u64()?, file.u64()?);
    let (mut blocks, mut hidden, mut intermediate) = (0, 0, 0);
    for _ in 0..values {
        let name = file.text()?;
        let kind = file.u32()?;
        let place = match name.rsplit('.').next() {
            Some("block_count") => Some(&mut blocks),
            Some("embedding_length") => Some(&mut hidden),
            Some("feed_forward_length") => Some(&mut intermediate),
            _ => None,
        };
        match place.filter(|_| kind == 4) {
            Some(place) => *place = file.u32()? as usize,
            None => file.skip_value(kind)?,
        }
    }
    let mut parameters = 0_u64;
    for _ in 0..tensors {
        file.text()?;
        let dimensions = file.u32()?;
        let mut product = 1_u64;
        for _ in 0..dimensions.min(8) {
            product = product.checked_mul(file.u64()?)?;
        }
        file.skip(12)?;
        parameters = parameters.checked_add(product)?;
    }
    (parameters > 0).then_some(Size { parameters, blocks, hidden, intermediate, fetch_bytes: 0 })
}

/// GGUF's number for lists.
const LIST: u32 = 9;

struct Gguf(BufReader<std::fs::File>);

impl Gguf {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.0.seek(SeekFrom::Current(i64::try_from(bytes).ok()?)).ok().map(|_| ())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u64().filter(|length| *length < LARGEST_HEADER)?;
        let mut bytes = Vec::new();
        (&mut self.0).take(length).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == length).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip_value(&mut self, kind: u32) -> Option<()> {
        let width = |kind: u32| match kind {
            0 | 1 | 7 => Some(1_u64),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        match kind {
            8 => self.text().map(|_| ()),
            LIST => {
                let of = self.u32()?;
                let count = self.u64().filter(|count| *count < LARGEST_HEADER)?;
                match width(of) {
                    Some(width) => self.skip(width * count),
                    // Nobody nests lists; a file that does is not read on.
                    None if of == LIST => None,
                    None => (0..count).try_for_each(|_| self.skip_value(of)),
                }
            }
            kind => self.skip(width(kind)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safetensors_directory_says_how_large_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let header = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[3,5],"data_offsets":[0,60]},"b":{"dtype":"F32","shape":[7],"data_offsets":[60,88]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        std::fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"hidden_size": 5}"#).unwrap();
        assert_eq!(
            Size::of_files(folder.path()),
            Some(Size { parameters: 22, hidden: 5, ..Size::default() })
        );
        std::fs::write(folder.path().join("model.safetensors"), &bytes[..20]).unwrap();
        assert_eq!(Size::of_files(folder.path()), None);
    }

    #[test]
    fn a_gguf_file_says_how_large_it_is() {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(3_u64.to_le_bytes());
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(&mut bytes, "general.name");
        bytes.extend(8_u32.to_le_bytes());
        text(&mut bytes, "tiny");
        text(&mut bytes, "tokens");
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        text(&mut bytes, "a");
        text(&mut bytes, "b");
        text(&mut bytes, "llama.embedding_length");
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(64_u32.to_le_bytes());
        for (name, shape) in [("x", vec![4_u64, 6]), ("y", vec![10])] {
            text(&mut bytes, name);
            bytes.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend([0; 12]);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.gguf");
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(Size::of_files(&file), Some(Size { parameters: 34, hidden: 64, ..Size::default() }));
        for cut in 0..bytes.len() - 12 {
            std::fs::write(&file, &bytes[..cut]).unwrap();
            let _ = Size::of_files(&file);
        }
    }

    #[test]
    fn the_papers_models_are_known_by_their_hub_names() {
        assert_eq!(Size::published("meta-llama/Llama-2-7b-hf@main").unwrap().parameters, 6_738_415_616);
        assert_eq!(Size::published("org/other"), None);
    }
}
