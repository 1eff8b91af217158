//! `llmcb-host` measures what compressing a large language model costs and what it buys.
//!
//! The way of one run: [`cli`] turns flags into a [`suite`], whose plan has stages; each stage runs in a [`worker`] process ([`stage`] is what
//! runs inside) with [`plugins`] and the data of [`assets`]; [`tasks`] become [`metrics`], metrics become [`tracks`], and [`report`] shows
//! them.
pub mod assets;
pub mod cli;
pub mod metrics;
pub mod plugins;
pub mod report;
pub mod stage;
pub mod suite;
pub mod tasks;
pub mod tracks;
pub mod worker;
