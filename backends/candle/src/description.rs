//! Models and blocks in the interface's words.

use llmcb_plugin_api::sdk::{
    Axis, BlockInfo, EMBEDDING, Error, FedBy, HEAD, LAST_NORM, LAST_NORM_BIAS, Linear, ModelPart,
    ModelStructure, Module, Norm, OutputRange, POSITIONS, PROJECT_IN, PROJECT_OUT, Parameter, Result,
    StructurePart,
};
use llmcb_transformer::{
    ActivationSite, Architecture, Block, Model, ModuleInfo, OuterTensor, Structure, UnitAxis,
};

/// The structure of the channels of the residual stream.
pub(crate) const HIDDEN: &str = "hidden";

fn size(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn axis(side: UnitAxis) -> Axis {
    match side {
        UnitAxis::Outputs => Axis::Outputs,
        UnitAxis::Inputs => Axis::Inputs,
    }
}

/// The interface's name of a tensor outside the blocks.
fn outer_name(tensor: OuterTensor) -> &'static str {
    match tensor {
        OuterTensor::Embedding => EMBEDDING,
        OuterTensor::Positions => POSITIONS,
        OuterTensor::ProjectIn => PROJECT_IN,
        OuterTensor::FinalNorm => LAST_NORM,
        OuterTensor::FinalNormBias => LAST_NORM_BIAS,
        OuterTensor::ProjectOut => PROJECT_OUT,
        OuterTensor::Head => HEAD,
    }
}

/// The tensor outside the blocks of this name, and its shape.
pub(crate) fn outer(architecture: &Architecture, name: &str) -> Result<(OuterTensor, Vec<usize>)> {
    let mut all = OuterTensor::of(architecture);
    if let Some((tensor, _, shape)) = all.find(|(tensor, ..)| outer_name(*tensor) == name) {
        return Ok((tensor, shape));
    }
    if name == HEAD {
        return Err(Error::invalid("the model's output head is its embedding"));
    }
    let known: Vec<&str> = OuterTensor::of(architecture).map(|(tensor, ..)| outer_name(tensor)).collect();
    Err(Error::invalid(format!("outside its blocks the model has {}, no `{name}`", known.join(", "))))
}

/// What the structure of the residual stream is made of; `blocks` describes them as they are.
pub(crate) fn residual_stream(model: &Model, blocks: &[llmcb_transformer::BlockInfo]) -> ModelStructure {
    let a = model.architecture();
    let mut parts = Vec::new();
    let outside = |tensor: OuterTensor| {
        tensor.shape(a)?;
        Some((Parameter::outside(outer_name(tensor)), axis(tensor.residual_side(a)?)))
    };
    parts.extend([OuterTensor::Embedding, OuterTensor::Positions, OuterTensor::ProjectIn].map(outside));
    for (index, info) in blocks.iter().enumerate() {
        for (name, side) in info.residual_sides() {
            parts.push(Some((Parameter::of_block(index as u32, name), axis(side))));
        }
    }
    parts.extend([OuterTensor::FinalNorm, OuterTensor::FinalNormBias, OuterTensor::ProjectOut].map(outside));
    // Where embedding and head are one, the matrix is named for each of its two uses.
    parts.push(outside(if a.tie_word_embeddings { OuterTensor::Embedding } else { OuterTensor::Head }));
    let parts = parts.into_iter().flatten().map(|(parameter, axis)| ModelPart { parameter, axis }).collect();
    ModelStructure { name: HIDDEN.to_owned(), units: size(a.hidden_size), parts }
}

/// What a linear has of each unit.
fn part(part: llmcb_transformer::StructurePart, a: &Architecture) -> Option<StructurePart> {
    let (linear, first) = a.family.names.holder(part.role, a)?;
    let first = match part.axis {
        UnitAxis::Outputs => first,
        UnitAxis::Inputs => 0,
    };
    Some(StructurePart {
        linear: linear.name.to_owned(),
        axis: axis(part.axis),
        first: size(first),
        width: size(part.width),
    })
}

/// The description of a block: the `index`-th of `of`, calibrated on so many windows.
pub(crate) fn block(block: &Block, index: u32, of: usize, windows: usize) -> BlockInfo {
    let (info, a) = (block.info(), block.architecture());
    let names = a.family.names;
    let linear = |l: &llmcb_transformer::LinearInfo| Linear {
        name: l.name.clone(),
        out_features: size(l.out_features),
        in_features: size(l.in_features),
        input_group: l.input.name().to_owned(),
        bias: l.bias,
        outputs: l
            .outputs
            .iter()
            .map(|o| OutputRange { what: o.what.to_owned(), first: size(o.first), count: size(o.count) })
            .collect(),
        fed_by: l.fed_by.as_ref().map(|from| FedBy {
            linear: from.linear.clone(),
            first: size(from.first),
            width: size(from.width),
            repeats: size(from.repeats),
        }),
    };
    let norm = |n: &llmcb_transformer::NormInfo| Norm {
        name: n.name.clone(),
        size: size(n.size),
        bias: n.bias,
        feeds: n.feeds.clone(),
    };
    let module = |module: ModuleInfo| {
        let inside = [module.input(), module.inner()];
        let linears = info.linears.iter().filter(|l| inside.contains(&l.input));
        Some(Module {
            name: module.name(names)?.to_owned(),
            input_group: module.input().name().to_owned(),
            linears: linears.map(|l| l.name.clone()).collect(),
        })
    };
    BlockInfo {
        index,
        of: size(of),
        windows: size(windows),
        linears: info.linears.iter().map(linear).collect(),
        norms: info.norms.iter().map(norm).collect(),
        heads: size(info.heads),
        key_value_heads: size(info.key_value_heads),
        head_dim: size(info.head_dim),
        modules: ModuleInfo::ALL.into_iter().filter_map(module).collect(),
        structures: Structure::ALL
            .map(|structure| llmcb_plugin_api::sdk::Structure {
                name: structure.name().to_owned(),
                units: size(structure.units(a)),
                parts: structure.parts(a).into_iter().filter_map(|p| part(p, a)).collect(),
            })
            .to_vec(),
        activation_sites: ActivationSite::ALL.map(|site| site.name().to_owned()).to_vec(),
    }
}

/// The shape of a parameter of a block.
pub(crate) fn shape_of(info: &llmcb_transformer::BlockInfo, name: &str) -> Result<Vec<usize>> {
    let (owner, bias) = name.strip_suffix(".bias").map_or((name, false), |owner| (owner, true));
    let linear = info.linears.iter().find(|l| l.name == owner);
    let norm = info.norms.iter().find(|n| n.name == owner);
    match (linear, norm) {
        (Some(linear), _) if !bias => Ok(vec![linear.out_features, linear.in_features]),
        (Some(linear), _) if linear.bias => Ok(vec![linear.out_features]),
        (_, Some(norm)) if !bias || norm.bias => Ok(vec![norm.size]),
        _ if bias => Err(Error::invalid(format!("a block has no bias `{name}`"))),
        _ => Err(Error::invalid(format!("a block has no linear or norm `{name}`"))),
    }
}
