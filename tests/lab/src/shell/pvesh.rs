//! `pvesh`: the API by its paths.

use super::programs::{Line, refused};
use super::{Node, Printed};

const USAGE: &str = "pvesh <COMMAND> <api_path> [OPTIONS] [FORMAT_OPTIONS]";

/// Runs it.
pub async fn run(node: &Node, words: &[&str]) -> Printed {
    let (method, verb) = match words.first() {
        Some(&"get") => ("GET", "get"),
        Some(&"create") => ("POST", "create"),
        Some(&"set") => ("PUT", "set"),
        Some(&"delete") => ("DELETE", "delete"),
        Some(other) => {
            return Printed::failed(255, format!("ERROR: unknown command 'pvesh {other}'\nUSAGE: {USAGE}\n"));
        }
        None => return Printed::failed(255, format!("ERROR: no command specified\nUSAGE: {USAGE}\n")),
    };
    let usage = format!("pvesh {verb} <api_path> [OPTIONS] [FORMAT_OPTIONS]");
    let mut line = match Line::read(&words[1..]) {
        Ok(line) => line,
        Err(text) => return Printed::failed(255, format!("{text}{usage}\n")),
    };
    let path = match line.positional.as_slice() {
        [path] => *path,
        [] => return Printed::failed(255, format!("400 not enough arguments\n{usage}\n")),
        _ => return Printed::failed(255, format!("400 too many arguments\n{usage}\n")),
    };
    for of_the_program in ["noborder", "noheader", "quiet", "human-readable"] {
        line.parameters.remove(of_the_program);
    }
    match node.call(method, path, line.parameters).await {
        None => Printed::failed(255, format!("No '{verb}' handler defined for '{path}'\n")),
        Some(Ok(answer)) => Printed::out(line.format.print(&answer, &[])),
        Some(Err(error)) => refused(&error, &usage),
    }
}
