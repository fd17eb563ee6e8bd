//! `forge schema`.

use clap::{Args, ValueEnum};

use crate::schema::{self, File};
use crate::ui;

/// Whose schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Of profiles
    Profile,
    /// Of the site file
    Site,
    /// Of `proof.json` in the evidence
    Proof,
}

/// Options of `forge schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Whose schema
    #[arg(value_enum, default_value_t = Which::Profile)]
    file: Which,
}

/// Prints a schema; gives the exit code.
#[must_use]
pub fn schema(args: &SchemaArgs) -> u8 {
    let file = match args.file {
        Which::Profile => File::Profile,
        Which::Site => File::Site,
        Which::Proof => File::Proof,
    };
    let text = serde_json::to_string_pretty(&schema::schema(file)).unwrap_or_default();
    ui::data(&format!("{text}\n"));
    0
}
