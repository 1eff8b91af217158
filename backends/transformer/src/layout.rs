//! Where the tensors of a model lie: what a family calls them, and what each linear of a block is for.
//!
//! A block computes with up to seven matrices, its [`Role`]s. A family's files may hold several of them as one linear (queries, keys and
//! values of ChatGLM): methods see the linear as it is stored, the forward pass sees the roles.

use serde::Serialize;

use crate::architecture::{Architecture, FeedForward};
use crate::{Error, Result, UnitAxis};

/// What a linear of a block reads. Linears of one group share their input, so their statistics are computed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InputGroup {
    /// What attention reads, normalised or not: query, key and value projections.
    AttnIn,
    /// The mixed values of all heads: the output projection.
    AttnOut,
    /// What the feed-forward part reads: gate and up projections.
    MlpIn,
    /// The gated or rectified activations: the down projection.
    MlpOut,
}

impl InputGroup {
    /// All groups, in the order in which a block computes them.
    pub const ALL: [InputGroup; 4] =
        [InputGroup::AttnIn, InputGroup::AttnOut, InputGroup::MlpIn, InputGroup::MlpOut];

    /// Which side of the weights of its linears is the residual stream.
    pub fn residual_side(self) -> UnitAxis {
        match self {
            InputGroup::AttnIn | InputGroup::MlpIn => UnitAxis::Inputs,
            InputGroup::AttnOut | InputGroup::MlpOut => UnitAxis::Outputs,
        }
    }

    /// The name used in descriptions: `attn_in`, `attn_out`, `mlp_in`, `mlp_out`.
    pub fn name(self) -> &'static str {
        match self {
            InputGroup::AttnIn => "attn_in",
            InputGroup::AttnOut => "attn_out",
            InputGroup::MlpIn => "mlp_in",
            InputGroup::MlpOut => "mlp_out",
        }
    }
}

/// What a matrix of a block is for; as a number, its place in the block's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Makes queries.
    Query,
    /// Makes keys.
    Key,
    /// Makes values.
    Value,
    /// Reads the mixed values of all heads.
    Output,
    /// Makes the gate of a gated feed-forward part; others have none.
    Gate,
    /// Makes what is gated, or what goes through the activation function.
    Up,
    /// Reads the inner activations of the feed-forward part.
    Down,
}

impl Role {
    pub(crate) const ALL: [Role; 7] =
        [Role::Query, Role::Key, Role::Value, Role::Output, Role::Gate, Role::Up, Role::Down];

    /// What its outputs are, as descriptions name it.
    pub fn outputs_name(self) -> &'static str {
        match self {
            Role::Query => "queries",
            Role::Key => "keys",
            Role::Value => "values",
            Role::Output => "attention",
            Role::Gate => "gate",
            Role::Up => "up",
            Role::Down => "feed_forward",
        }
    }

    pub(crate) fn group(self) -> InputGroup {
        match self {
            Role::Query | Role::Key | Role::Value => InputGroup::AttnIn,
            Role::Output => InputGroup::AttnOut,
            Role::Gate | Role::Up => InputGroup::MlpIn,
            Role::Down => InputGroup::MlpOut,
        }
    }

    /// `(outputs, inputs)`; nothing for a gate that there is not.
    pub(crate) fn shape(self, a: &Architecture) -> (usize, usize) {
        match self {
            Role::Query => (a.query_width(), a.hidden_size),
            Role::Key | Role::Value => (a.key_value_width(), a.hidden_size),
            Role::Output => (a.hidden_size, a.query_width()),
            Role::Gate if a.feed_forward != FeedForward::GatedSilu => (0, a.hidden_size),
            Role::Gate | Role::Up => (a.intermediate_size, a.hidden_size),
            Role::Down => (a.hidden_size, a.intermediate_size),
        }
    }

    pub(crate) fn has_bias(self, a: &Architecture) -> bool {
        match self {
            Role::Query | Role::Key | Role::Value => a.qkv_bias,
            Role::Output => a.output_bias,
            Role::Gate | Role::Up | Role::Down => a.mlp_bias,
        }
    }
}

/// A part of a block with one input and one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleInfo {
    /// Attention, from what its first linears read to what is added to the residual stream.
    Attention,
    /// The feed-forward part, likewise.
    Mlp,
}

impl ModuleInfo {
    /// All parts, in order.
    pub const ALL: [ModuleInfo; 2] = [ModuleInfo::Attention, ModuleInfo::Mlp];

    /// The name of the part inside a block of this family: `self_attn`, `mlp`; none where the family's files do not name it.
    pub fn name(self, names: &Names) -> Option<&'static str> {
        match self {
            ModuleInfo::Attention => Some(names.attention),
            ModuleInfo::Mlp => names.feed_forward,
        }
    }

    /// The part of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none.
    pub fn from_name(name: &str, names: &Names) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|part| part.name(names) == Some(name));
        found.ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().filter_map(|part| part.name(names)).collect();
            Error::argument(format!("module `{name}`"), format!("a block has only {}", known.join(", ")))
        })
    }

    /// What its first linears read.
    pub fn input(self) -> InputGroup {
        match self {
            ModuleInfo::Attention => InputGroup::AttnIn,
            ModuleInfo::Mlp => InputGroup::MlpIn,
        }
    }

    /// What its last linear reads.
    pub fn inner(self) -> InputGroup {
        match self {
            ModuleInfo::Attention => InputGroup::AttnOut,
            ModuleInfo::Mlp => InputGroup::MlpOut,
        }
    }

    pub(crate) fn last(self) -> Role {
        match self {
            ModuleInfo::Attention => Role::Output,
            ModuleInfo::Mlp => Role::Down,
        }
    }
}

/// A linear as a family's files name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearName {
    /// Its name inside a block: `self_attn.q_proj`.
    pub name: &'static str,
    /// The matrices that it holds, from its first row on.
    pub roles: &'static [Role],
}

/// What a family calls the tensors of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// What the names of blocks begin with; an index follows: `model.layers`.
    pub blocks: &'static str,
    /// The linears of a block, in the order in which they are computed.
    pub linears: &'static [LinearName],
    /// The norms of a block: of attention, and of the feed-forward part.
    pub norms: [&'static str; 2],
    /// The part of a block that is attention.
    pub attention: &'static str,
    /// The part of a block that is the feed-forward part, where it has a name of its own.
    pub feed_forward: Option<&'static str>,
    /// The embedding, with `.weight`, as are those below.
    pub embedding: &'static str,
    /// Learned positions; empty for families without.
    pub positions: &'static str,
    /// From a narrower embedding to the residual stream; empty for families without.
    pub project_in: &'static str,
    /// And back before the output head.
    pub project_out: &'static str,
    /// The last norm, without `.weight`: it may have a bias.
    pub final_norm: &'static str,
    /// The output head.
    pub head: &'static str,
    /// Other beginnings that checkpoints of the family use: what we say, and what they say.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl Names {
    /// What a linear or norm is called in full: `model.layers.3.mlp.up_proj`.
    pub fn in_block(&self, block: usize, name: &str) -> String {
        format!("{}.{block}.{name}", self.blocks)
    }

    /// The block and the name inside it of a full name.
    pub fn split<'a>(&self, full: &'a str) -> Option<(usize, &'a str)> {
        let (index, name) = full.strip_prefix(self.blocks)?.strip_prefix('.')?.split_once('.')?;
        Some((index.parse().ok()?, name))
    }

    /// The linear of this name inside a block.
    pub fn linear(&self, name: &str) -> Option<&'static LinearName> {
        self.linears.iter().find(|linear| linear.name == name)
    }

    /// The linear that holds a matrix, and the row of it at which the matrix begins.
    pub fn holder(&self, role: Role, architecture: &Architecture) -> Option<(&'static LinearName, usize)> {
        let linear = self.linears.iter().find(|linear| linear.roles.contains(&role))?;
        let before = linear.roles.iter().take_while(|other| **other != role);
        Some((linear, before.map(|other| other.shape(architecture).0).sum()))
    }
}

impl LinearName {
    /// `(outputs, inputs)` of the whole linear.
    pub fn shape(&self, architecture: &Architecture) -> (usize, usize) {
        let shapes = self.roles.iter().map(|role| role.shape(architecture));
        shapes.reduce(|(rows, columns), (more, _)| (rows + more, columns)).unwrap_or_default()
    }

    /// Whether it adds a bias.
    pub fn has_bias(&self, architecture: &Architecture) -> bool {
        self.roles.first().is_some_and(|role| role.has_bias(architecture))
    }

    /// What it reads.
    pub fn group(&self) -> InputGroup {
        self.roles.first().map_or(InputGroup::AttnIn, |role| role.group())
    }
}

/// A tensor outside the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OuterTensor {
    /// The embedding of tokens, `[vocabulary, embedding size]`; the output head as well, where both are one.
    Embedding,
    /// Learned positions, `[positions, hidden size]`.
    Positions,
    /// From the embedding to the residual stream, `[hidden size, embedding size]`.
    ProjectIn,
    /// The weight of the last norm, `[hidden size]`.
    FinalNorm,
    /// Its bias, `[hidden size]`.
    FinalNormBias,
    /// From the residual stream to what the head reads, `[embedding size, hidden size]`.
    ProjectOut,
    /// An output head of its own, `[vocabulary, embedding size]`.
    Head,
}

impl OuterTensor {
    /// All, in the order of the forward pass.
    pub const ALL: [OuterTensor; 7] = [
        OuterTensor::Embedding,
        OuterTensor::Positions,
        OuterTensor::ProjectIn,
        OuterTensor::FinalNorm,
        OuterTensor::FinalNormBias,
        OuterTensor::ProjectOut,
        OuterTensor::Head,
    ];

    /// What a family's files call it.
    pub fn name(self, names: &Names) -> String {
        match self {
            OuterTensor::Embedding => names.embedding.to_owned(),
            OuterTensor::Positions => names.positions.to_owned(),
            OuterTensor::ProjectIn => names.project_in.to_owned(),
            OuterTensor::FinalNorm => format!("{}.weight", names.final_norm),
            OuterTensor::FinalNormBias => format!("{}.bias", names.final_norm),
            OuterTensor::ProjectOut => names.project_out.to_owned(),
            OuterTensor::Head => names.head.to_owned(),
        }
    }

    /// Its shape in a model of this architecture; `None` where such a model has none.
    pub fn shape(self, a: &Architecture) -> Option<Vec<usize>> {
        let (hidden, embedding) = (a.hidden_size, a.embedding_size);
        match self {
            OuterTensor::Embedding => Some(vec![a.vocab_size, embedding]),
            OuterTensor::Positions => a.learned_positions().map(|rows| vec![rows, hidden]),
            OuterTensor::ProjectIn => a.projects().then(|| vec![hidden, embedding]),
            OuterTensor::FinalNorm => a.final_norm.then(|| vec![hidden]),
            OuterTensor::FinalNormBias => (a.final_norm && a.norm.has_bias()).then(|| vec![hidden]),
            OuterTensor::ProjectOut => a.projects().then(|| vec![embedding, hidden]),
            OuterTensor::Head => (!a.tie_word_embeddings).then(|| vec![a.vocab_size, embedding]),
        }
    }

    /// Those of a model of this architecture, with names and shapes.
    pub fn of(architecture: &Architecture) -> impl Iterator<Item = (OuterTensor, String, Vec<usize>)> + '_ {
        Self::ALL.into_iter().filter_map(|tensor| {
            let shape = tensor.shape(architecture)?;
            Some((tensor, tensor.name(architecture.family.names), shape))
        })
    }

    /// Which side of it is the residual stream, if any; the only side of a norm or its bias is its outputs.
    pub fn residual_side(self, a: &Architecture) -> Option<UnitAxis> {
        match self {
            OuterTensor::Embedding | OuterTensor::Head => (!a.projects()).then_some(UnitAxis::Inputs),
            OuterTensor::Positions | OuterTensor::ProjectOut => Some(UnitAxis::Inputs),
            OuterTensor::ProjectIn | OuterTensor::FinalNorm | OuterTensor::FinalNormBias => {
                Some(UnitAxis::Outputs)
            }
        }
    }
}
