#![doc = include_str!("ARCHITECTURE.md")]

pub mod backends;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod engine;
pub mod event;
pub mod evidence;
pub mod gc;
pub mod media;
pub mod plan;
pub mod provision;
pub mod remote;
pub mod seal;
pub mod stages;
pub mod trial;
pub mod ui;
