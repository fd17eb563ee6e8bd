//! The programs of a node, by name; and what the three of Proxmox's have in common.

use serde_json::{Map, Value};

use super::format::Format;
use super::{Node, Printed, pvesh, pvesm, pveum};
use crate::config::PveVersion;
use crate::error::ApiError;

const OF_PROXMOX: [&str; 4] = ["pveum", "pvesh", "pvesm", "pveversion"];

/// Runs one program.
pub async fn run(node: &Node, words: &[String]) -> Printed {
    let Some((program, rest)) = words.split_first() else { return Printed::default() };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let is_root = node.config.user == "root";
    let has = |name: &str| node.config.proxmox && OF_PROXMOX.contains(&name);
    match (program.as_str(), rest.as_slice()) {
        ("id", ["-u"]) => Printed::out(if is_root { "0\n" } else { "1000\n" }),
        ("hostname", []) => Printed::out(format!("{}\n", node.cluster.config.nodes[0])),
        ("command", ["-v", name]) => match *name {
            "pvesh" | "pveversion" if has(name) => Printed::out(format!("/usr/bin/{name}\n")),
            name if has(name) => Printed::out(format!("/usr/sbin/{name}\n")),
            _ => Printed { code: 1, ..Printed::default() },
        },
        (name, _) if !has(name) => Printed::failed(127, format!("bash: line 1: {name}: command not found\n")),
        ("pveversion", _) => Printed::out(match node.cluster.config.version {
            PveVersion::V9 => "pve-manager/9.2.11/14a22df3 (running kernel: 6.14.0-lab)\n",
            PveVersion::V8 => "pve-manager/8.4.14/b502d23c55afcba1 (running kernel: 6.14.0-lab)\n",
        }),
        _ if !is_root => Printed::failed(255, "please run as root\n"),
        ("pveum", _) => pveum::run(node, &rest).await,
        ("pvesh", _) => pvesh::run(node, &rest).await,
        _ => pvesm::run(node, &rest).await,
    }
}

/// A command line of Proxmox's: what stands by position, what stands by name, and how the answer is printed.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// By position.
    pub positional: Vec<&'a str>,
    /// By name.
    pub parameters: Map<String, Value>,
    /// How it is printed.
    pub format: Format,
}

impl<'a> Line<'a> {
    /// Reads one. A name that takes a value has it as the next word, or after `=`.
    ///
    /// # Errors
    /// The lines that the program ends with, without its usage.
    pub fn read(words: &[&'a str]) -> Result<Line<'a>, String> {
        let mut line = Line::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let name =
                word.strip_prefix("--").or_else(|| word.strip_prefix('-').filter(|name| name.len() > 1));
            let Some(name) = name else {
                line.positional.push(word);
                continue;
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, value),
                None => {
                    let missing =
                        || format!("Option {name} requires an argument\n400 unable to parse option\n");
                    (name, *rest.next().ok_or_else(missing)?)
                }
            };
            match name {
                "output-format" => {
                    line.format = Format::named(value).ok_or_else(|| {
                        format!("400 Parameter verification failed.\noutput-format: value '{value}' does not have a value in the enumeration 'text, json, json-pretty, yaml'\n")
                    })?;
                }
                name => drop(line.parameters.insert(name.to_owned(), value.into())),
            }
        }
        Ok(line)
    }
}

/// What a program prints when the API refuses, and how it ends.
pub fn refused(error: &ApiError, usage: &str) -> Printed {
    if let Some(errors) = &error.errors {
        let unknown = |text: &Value| text.as_str().is_some_and(|text| text.contains("not defined in schema"));
        let mut lines = String::new();
        if errors.values().any(unknown) {
            for (name, _) in errors.iter().filter(|(_, text)| unknown(text)) {
                lines += &format!("Unknown option: {name}\n");
            }
            lines += "400 unable to parse option\n";
        } else {
            lines += "400 Parameter verification failed.\n";
            for (name, text) in errors {
                lines += &format!("{name}: {}\n", text.as_str().unwrap_or_default());
            }
        }
        return Printed::failed(255, format!("{lines}{usage}\n"));
    }
    // Perl's `die` ends with the last error number of the system: what these texts came with on a real node.
    let code = match error.message.as_str() {
        text if text.starts_with("create user failed") => 2,
        text if text.starts_with("hostname lookup") => 11,
        _ => 255,
    };
    Printed::failed(code, format!("{}\n", error.message.trim_end()))
}
