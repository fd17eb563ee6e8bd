//! `/access/users` and their tokens.

use serde_json::{Map, Value, json};

use super::super::{Answer, Call};
use crate::auth::{Auth, Token, User};
use crate::error::{ApiError, ApiResult};
use crate::schema::split_list;

/// Parameters that are kept as they are given.
const FIELDS: [&str; 5] = ["comment", "email", "firstname", "lastname", "keys"];

fn failed(what: &str, text: impl std::fmt::Display) -> ApiError {
    ApiError::die(format!("{what} user failed: {text}"))
}

fn token_info(token: &Token) -> Map<String, Value> {
    let mut info = Map::new();
    info.insert("privsep".to_owned(), u8::from(token.separated).into());
    info.insert("expire".to_owned(), token.expire.into());
    if let Some(comment) = &token.comment {
        info.insert("comment".to_owned(), comment.clone().into());
    }
    info
}

fn groups_of<'a>(auth: &'a Auth, user: &str) -> Vec<&'a str> {
    let member = auth.groups.iter().filter(|(_, group)| group.members.contains(user));
    member.map(|(name, _)| name.as_str()).collect()
}

fn entry(user: &User) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("enable".to_owned(), u8::from(user.enabled).into());
    entry.insert("expire".to_owned(), user.expire.into());
    for (name, value) in &user.fields {
        entry.insert(name.clone(), value.clone().into());
    }
    entry
}

/// `GET users`: oneself, and those in whose groups one may look.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let privileges = ["User.Modify", "Sys.Audit"];
    let auth = call.cluster.auth();
    let all = auth.require_any(&call.caller, "/access/groups", &privileges).is_ok();
    let groups = auth.groups_with(&call.caller, &privileges);
    let enabled = call.params.get("enabled").map(|flag| flag == "1");
    let mut list = Vec::new();
    for (id, user) in &auth.users {
        let seen = all
            || *id == call.caller.0
            || groups.iter().any(|group| auth.groups[*group].members.contains(id));
        if !seen || enabled.is_some_and(|enabled| enabled != user.enabled) {
            continue;
        }
        let mut entry = entry(user);
        entry.insert("userid".to_owned(), id.clone().into());
        entry.insert("realm-type".to_owned(), id.rsplit_once('@').map_or("", |(_, realm)| realm).into());
        if call.params.flag("full") {
            entry.insert("groups".to_owned(), groups_of(&auth, id).join(",").into());
            let tokens = user.tokens.iter().map(|(name, token)| {
                let mut info = token_info(token);
                info.insert("tokenid".to_owned(), name.clone().into());
                Value::Object(info)
            });
            entry.insert("tokens".to_owned(), tokens.collect());
        }
        list.push(Value::Object(entry));
    }
    Ok(Value::Array(list).into())
}

fn set_fields(call: &Call, user: &mut User) {
    for name in FIELDS {
        if let Some(value) = call.params.get(name) {
            user.fields.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(enable) = call.params.get("enable") {
        user.enabled = enable == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        user.expire = expire;
    }
}

fn set_groups(call: &Call, auth: &mut Auth, id: &str, what: &str) -> ApiResult<()> {
    let Some(groups) = call.params.get("groups") else { return Ok(()) };
    if let Some(missing) = split_list(groups).find(|name| !auth.groups.contains_key(*name)) {
        return Err(failed(what, format!("no such group '{missing}'")));
    }
    if !call.params.flag("append") {
        for group in auth.groups.values_mut() {
            group.members.remove(id);
        }
    }
    for name in split_list(groups) {
        if let Some(group) = auth.groups.get_mut(name) {
            group.members.insert(id.to_owned());
        }
    }
    Ok(())
}

/// `POST users`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("userid");
    let mut auth = call.cluster.auth();
    if auth.users.contains_key(id) {
        return Err(failed("create", format!("user '{id}' already exists")));
    }
    let realm = id.rsplit_once('@').map_or("", |(_, realm)| realm);
    let mut user = User::default();
    if let Some(password) = call.params.get("password") {
        match realm {
            "pam" | "pve" => user.password = Some(password.to_owned()),
            _ => return Err(failed("create", format!("auth domain '{realm}' does not exist"))),
        }
    }
    set_fields(call, &mut user);
    set_groups(call, &mut auth, id, "create")?;
    auth.users.insert(id.to_owned(), user);
    Ok(Value::Null.into())
}

/// `GET users/{userid}`.
pub fn read(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("userid");
    let auth = call.cluster.auth();
    let user = auth.user(id)?;
    let mut entry = entry(user);
    entry.insert("groups".to_owned(), json!(groups_of(&auth, id)));
    let tokens: Map<String, Value> =
        user.tokens.iter().map(|(name, token)| (name.clone(), Value::Object(token_info(token)))).collect();
    entry.insert("tokens".to_owned(), Value::Object(tokens));
    Ok(Value::Object(entry).into())
}

/// `PUT users/{userid}`.
pub fn update(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("userid");
    let mut auth = call.cluster.auth();
    auth.user(id).map_err(|error| failed("update", error.message))?;
    set_groups(call, &mut auth, id, "update")?;
    if let Some(user) = auth.users.get_mut(id) {
        set_fields(call, user);
    }
    Ok(Value::Null.into())
}

/// `DELETE users/{userid}`.
pub fn remove(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("userid");
    let mut auth = call.cluster.auth();
    auth.user(id).map_err(|error| failed("delete", error.message))?;
    auth.remove_user(id);
    Ok(Value::Null.into())
}

fn token<'a>(auth: &'a Auth, user: &str, name: &str) -> ApiResult<&'a Token> {
    auth.user(user)?
        .tokens
        .get(name)
        .ok_or_else(|| ApiError::die(format!("no such token '{name}' for user '{user}'")))
}

/// `GET token`.
pub fn tokens(call: &Call) -> ApiResult<Answer> {
    let auth = call.cluster.auth();
    let user = auth.user(call.params.text("userid"))?;
    let list = user.tokens.iter().map(|(name, token)| {
        let mut info = token_info(token);
        info.insert("tokenid".to_owned(), name.clone().into());
        Value::Object(info)
    });
    Ok(list.collect::<Value>().into())
}

/// `GET token/{tokenid}`.
pub fn read_token(call: &Call) -> ApiResult<Answer> {
    let auth = call.cluster.auth();
    let token = token(&auth, call.params.text("userid"), call.params.text("tokenid"))?;
    Ok(Value::Object(token_info(token)).into())
}

/// `POST token/{tokenid}`: the only answer that tells the secret, besides that to `regenerate`.
pub fn create_token(call: &Call) -> ApiResult<Answer> {
    let (id, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let mut auth = call.cluster.auth();
    if auth.user(id)?.tokens.contains_key(name) {
        return Err(ApiError::parameter("tokenid", "Token already exists."));
    }
    let token = Token {
        secret: crate::ids::uuid(),
        separated: call.params.get("privsep").is_none_or(|flag| flag == "1"),
        expire: call.params.number("expire").unwrap_or(0),
        comment: call.params.get("comment").map(str::to_owned),
    };
    let mut info = Map::new();
    // The command line prints it as text; so does the API.
    info.insert("privsep".to_owned(), u8::from(token.separated).to_string().into());
    if token.expire != 0 {
        info.insert("expire".to_owned(), token.expire.into());
    }
    if let Some(comment) = &token.comment {
        info.insert("comment".to_owned(), comment.clone().into());
    }
    let answer = json!({"full-tokenid": format!("{id}!{name}"), "info": info, "value": token.secret});
    if let Some(user) = auth.users.get_mut(id) {
        user.tokens.insert(name.to_owned(), token);
    }
    Ok(answer.into())
}

/// `PUT token/{tokenid}`.
pub fn update_token(call: &Call) -> ApiResult<Answer> {
    let (id, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let mut auth = call.cluster.auth();
    token(&auth, id, name)?;
    let unknown = split_list(call.params.get("delete").unwrap_or_default())
        .find(|key| !matches!(*key, "comment" | "expire" | "privsep"));
    if let Some(key) = unknown {
        return Err(ApiError::parameter("delete", format!("unknown option '{key}'")));
    }
    let Some(token) = auth.users.get_mut(id).and_then(|user| user.tokens.get_mut(name)) else {
        return Err(ApiError::die(format!("no such token '{name}' for user '{id}'")));
    };
    for key in split_list(call.params.get("delete").unwrap_or_default()) {
        match key {
            "comment" => token.comment = None,
            "expire" => token.expire = 0,
            _ => token.separated = true,
        }
    }
    if let Some(flag) = call.params.get("privsep") {
        token.separated = flag == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        token.expire = expire;
    }
    if let Some(comment) = call.params.get("comment") {
        token.comment = Some(comment.to_owned());
    }
    let mut answer = token_info(token);
    if call.params.flag("regenerate") {
        token.secret = crate::ids::uuid();
        answer.insert("full-tokenid".to_owned(), format!("{id}!{name}").into());
        answer.insert("value".to_owned(), token.secret.clone().into());
    }
    Ok(Value::Object(answer).into())
}

/// `DELETE token/{tokenid}`: its entries in the access list go with it.
pub fn remove_token(call: &Call) -> ApiResult<Answer> {
    let (id, name) = (call.params.text("userid"), call.params.text("tokenid"));
    let mut auth = call.cluster.auth();
    token(&auth, id, name)?;
    auth.remove_token(&format!("{id}!{name}"));
    Ok(Value::Null.into())
}
