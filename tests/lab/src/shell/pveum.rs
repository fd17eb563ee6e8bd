//! `pveum`: users, groups, roles, tokens, pools and the access list. Each command is a method of the API.

use serde_json::Value;

use super::programs::{Line, refused};
use super::{Node, Printed};

/// A command.
struct Command {
    /// Its words.
    words: &'static [&'static str],
    /// The API's method.
    method: &'static str,
    /// Its path, with the names of positional words in braces where they belong.
    path: &'static str,
    /// What stands by position.
    positional: &'static [&'static str],
    /// What it sets by itself.
    fixed: Option<(&'static str, &'static str)>,
    /// The first columns of its table.
    columns: &'static [&'static str],
    /// What its usage says after the positional words.
    options: &'static str,
}

const fn command(
    words: &'static [&'static str],
    method: &'static str,
    path: &'static str,
    positional: &'static [&'static str],
) -> Command {
    Command { words, method, path, positional, fixed: None, columns: &[], options: "[OPTIONS]" }
}

const fn list(
    words: &'static [&'static str],
    path: &'static str,
    columns: &'static [&'static str],
) -> Command {
    Command { columns, options: "[FORMAT_OPTIONS]", ..command(words, "GET", path, &[]) }
}

const COMMANDS: &[Command] = &[
    list(&["user", "list"], "/access/users", &["userid"]),
    command(&["user", "add"], "POST", "/access/users", &["userid"]),
    command(&["user", "modify"], "PUT", "/access/users/{userid}", &["userid"]),
    command(&["user", "delete"], "DELETE", "/access/users/{userid}", &["userid"]),
    Command {
        options: "[OPTIONS] [FORMAT_OPTIONS]",
        ..command(&["user", "permissions"], "GET", "/access/permissions", &["userid"])
    },
    Command {
        columns: &["tokenid"],
        options: "[FORMAT_OPTIONS]",
        ..command(&["user", "token", "list"], "GET", "/access/users/{userid}/token", &["userid"])
    },
    Command {
        options: "[OPTIONS] [FORMAT_OPTIONS]",
        ..command(
            &["user", "token", "add"],
            "POST",
            "/access/users/{userid}/token/{tokenid}",
            &["userid", "tokenid"],
        )
    },
    Command {
        options: "[OPTIONS] [FORMAT_OPTIONS]",
        ..command(
            &["user", "token", "modify"],
            "PUT",
            "/access/users/{userid}/token/{tokenid}",
            &["userid", "tokenid"],
        )
    },
    command(
        &["user", "token", "remove"],
        "DELETE",
        "/access/users/{userid}/token/{tokenid}",
        &["userid", "tokenid"],
    ),
    list(&["group", "list"], "/access/groups", &["groupid"]),
    command(&["group", "add"], "POST", "/access/groups", &["groupid"]),
    command(&["group", "modify"], "PUT", "/access/groups/{groupid}", &["groupid"]),
    command(&["group", "delete"], "DELETE", "/access/groups/{groupid}", &["groupid"]),
    list(&["role", "list"], "/access/roles", &["roleid"]),
    command(&["role", "add"], "POST", "/access/roles", &["roleid"]),
    command(&["role", "modify"], "PUT", "/access/roles/{roleid}", &["roleid"]),
    command(&["role", "delete"], "DELETE", "/access/roles/{roleid}", &["roleid"]),
    list(&["acl", "list"], "/access/acl", &["path", "roleid", "type", "ugid"]),
    Command {
        options: "--roles <string> [OPTIONS]",
        ..command(&["acl", "modify"], "PUT", "/access/acl", &["path"])
    },
    Command {
        fixed: Some(("delete", "1")),
        options: "--roles <string> [OPTIONS]",
        ..command(&["acl", "delete"], "PUT", "/access/acl", &["path"])
    },
    list(&["pool", "list"], "/pools", &["poolid"]),
    command(&["pool", "add"], "POST", "/pools", &["poolid"]),
    command(&["pool", "delete"], "DELETE", "/pools/{poolid}", &["poolid"]),
    command(&["passwd"], "PUT", "/access/password", &["userid"]),
];

impl Command {
    fn usage(&self) -> String {
        let positional: String = self.positional.iter().map(|name| format!("<{name}> ")).collect();
        format!("pveum {} {positional}{}", self.words.join(" "), self.options)
    }
}

/// Runs it.
pub async fn run(node: &Node, words: &[&str]) -> Printed {
    let Some(command) = COMMANDS.iter().find(|command| words.starts_with(command.words)) else {
        let known: Vec<&str> = words.iter().take_while(|word| !word.starts_with('-')).copied().collect();
        let text = match known.as_slice() {
            [] => "no command specified".to_owned(),
            known => format!("unknown command 'pveum {}'", known.join(" ")),
        };
        return Printed::failed(255, format!("ERROR: {text}\nUSAGE: pveum <COMMAND> [ARGS] [OPTIONS]\n"));
    };
    let usage = command.usage();
    let mut line = match Line::read(&words[command.words.len()..]) {
        Ok(line) => line,
        Err(text) => return Printed::failed(255, format!("{text}{usage}\n")),
    };
    let amount = match line.positional.len() {
        // What one may look at of oneself needs no name.
        0 if command.method == "GET" => "",
        given if given < command.positional.len() => "not enough",
        given if given > command.positional.len() => "too many",
        _ => "",
    };
    if !amount.is_empty() {
        return Printed::failed(255, format!("400 {amount} arguments\n{usage}\n"));
    }
    let mut path = command.path.to_owned();
    for (name, value) in command.positional.iter().zip(&line.positional) {
        let place = format!("{{{name}}}");
        if path.contains(&place) {
            path = path.replace(&place, value);
        } else {
            line.parameters.insert((*name).to_owned(), Value::from(*value));
        }
    }
    if let Some((name, value)) = command.fixed {
        line.parameters.insert(name.to_owned(), value.into());
    }
    match node.call(command.method, &path, line.parameters).await {
        None => Printed::failed(255, format!("{usage}\n")),
        Some(Ok(answer)) => Printed::out(line.format.print(&answer, command.columns)),
        Some(Err(error)) => refused(&error, &usage),
    }
}
