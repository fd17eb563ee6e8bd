//! Questions and changes, as commands of a node and as calls of the API (observed on PVE 9.2: `pveum`, `pvesh`).

use crate::api::encode::escape;

/// A question: `pvesh get PATH`, or `GET PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
}

impl Ask {
    /// A question about a path, given in segments.
    #[must_use]
    pub fn new(path: &[&str]) -> Self {
        Self { path: path.iter().map(|segment| (*segment).to_owned()).collect(), query: Vec::new() }
    }

    /// The same with a parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    /// The words of the command.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["pvesh".to_owned(), "get".to_owned(), format!("/{}", self.path.join("/"))];
        for (name, value) in &self.query {
            words.extend([format!("--{name}"), value.clone()]);
        }
        words.extend(["--output-format".to_owned(), "json".to_owned()]);
        words
    }

    /// The path of the call, escaped, and its parameters.
    #[must_use]
    pub fn call(&self) -> (String, &[(&'static str, String)]) {
        (self.path.iter().map(|segment| format!("/{}", escape(segment))).collect(), &self.query)
    }
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
}

impl Verb {
    /// The method's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A change of users and their rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a pool.
    AddPool {
        /// Its name.
        pool: String,
    },
    /// Makes a user, who has no password and so can't log in.
    AddUser {
        /// `name@realm`.
        user: String,
        /// What the list of users says about it.
        comment: String,
    },
    /// Makes a role.
    AddRole {
        /// Its name.
        role: String,
        /// What it may do.
        privileges: Vec<String>,
    },
    /// Adds privileges to a role, and takes none away.
    ExtendRole {
        /// Its name.
        role: String,
        /// What it may do as well.
        privileges: Vec<String>,
    },
    /// Removes a token, and with it its entries in the access list.
    RemoveToken {
        /// `name@realm`.
        user: String,
        /// The token's own name.
        token: String,
    },
    /// Makes a token with rights of its own. Its answer holds the secret, which is never told again.
    AddToken {
        /// `name@realm`.
        user: String,
        /// The token's own name.
        token: String,
        /// What the list of tokens says about it.
        comment: String,
    },
    /// Gives a role on a path and below.
    Grant {
        /// The path.
        path: String,
        /// The role.
        role: String,
        /// To these users.
        users: Vec<String>,
        /// And to these tokens (`user@realm!token`).
        tokens: Vec<String>,
    },
}

impl Change {
    /// The words of the command.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::AddPool { pool } => pveum(&["pool", "add", pool]),
            Self::AddUser { user, comment } => pveum(&["user", "add", user, "--comment", comment]),
            Self::AddRole { role, privileges } => {
                pveum(&["role", "add", role, "--privs", &privileges.join(",")])
            }
            Self::ExtendRole { role, privileges } => {
                pveum(&["role", "modify", role, "--privs", &privileges.join(","), "--append", "1"])
            }
            Self::RemoveToken { user, token } => pveum(&["user", "token", "remove", user, token]),
            Self::AddToken { user, token, comment } => {
                let mut words = pveum(&["user", "token", "add", user, token, "--privsep", "1"]);
                words.extend(["--comment", comment, "--output-format", "json"].map(str::to_owned));
                words
            }
            Self::Grant { path, role, users, tokens } => {
                let mut words = pveum(&["acl", "modify", path, "--roles", role]);
                for (name, list) in [("--users", users), ("--tokens", tokens)] {
                    if !list.is_empty() {
                        words.extend([name.to_owned(), list.join(",")]);
                    }
                }
                words
            }
        }
    }

    /// The call: what it does, the path, escaped, and its parameters.
    #[must_use]
    pub fn call(&self) -> (Verb, String, Vec<(&'static str, String)>) {
        let at_token =
            |user: &str, token: &str| format!("/access/users/{}/token/{}", escape(user), escape(token));
        match self {
            Self::AddPool { pool } => (Verb::Post, "/pools".into(), vec![("poolid", pool.clone())]),
            Self::AddUser { user, comment } => (
                Verb::Post,
                "/access/users".into(),
                vec![("userid", user.clone()), ("comment", comment.clone())],
            ),
            Self::AddRole { role, privileges } => (
                Verb::Post,
                "/access/roles".into(),
                vec![("roleid", role.clone()), ("privs", privileges.join(","))],
            ),
            Self::ExtendRole { role, privileges } => (
                Verb::Put,
                format!("/access/roles/{}", escape(role)),
                vec![("privs", privileges.join(",")), ("append", "1".into())],
            ),
            Self::RemoveToken { user, token } => (Verb::Delete, at_token(user, token), Vec::new()),
            Self::AddToken { user, token, comment } => (
                Verb::Post,
                at_token(user, token),
                vec![("privsep", "1".into()), ("comment", comment.clone())],
            ),
            Self::Grant { path, role, users, tokens } => {
                let mut parameters = vec![("path", path.clone()), ("roles", role.clone())];
                for (name, list) in [("users", users), ("tokens", tokens)] {
                    if !list.is_empty() {
                        parameters.push((name, list.join(",")));
                    }
                }
                (Verb::Put, "/access/acl".into(), parameters)
            }
        }
    }

    /// What it does, in words that follow "will" and "did".
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::AddPool { pool } => format!("make the pool {pool}"),
            Self::AddUser { user, .. } => format!("make the user {user}"),
            Self::AddRole { role, privileges } => {
                format!("make the role {role} with {} privileges", privileges.len())
            }
            Self::ExtendRole { role, privileges } => {
                format!("add {} to the role {role}", privileges.join(", "))
            }
            Self::RemoveToken { user, token } => format!("remove the token {user}!{token}"),
            Self::AddToken { user, token, .. } => format!("make the token {user}!{token}"),
            Self::Grant { path, role, users, tokens } => {
                let to: Vec<&str> = users.iter().chain(tokens).map(String::as_str).collect();
                format!("give the role {role} on {path} to {}", to.join(" and "))
            }
        }
    }
}

fn pveum(words: &[&str]) -> Vec<String> {
    std::iter::once("pveum").chain(words.iter().copied()).map(str::to_owned).collect()
}
