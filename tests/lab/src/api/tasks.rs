//! `/nodes/{node}/tasks`: a caller sees its own tasks, and with Sys.Audit on the node all of them.

use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::tasks::Task;

/// Whether a task is the caller's own: a token's own, or any of the user's when a user asks.
fn owns(call: &Call, task: &Task) -> bool {
    task.caller == call.caller || (call.caller.token().is_none() && task.caller.user() == call.caller.user())
}

fn find(call: &Call) -> ApiResult<Arc<Task>> {
    let upid = call.params.text("upid");
    let parts: Vec<&str> = upid.split(':').collect();
    if parts.len() < 9 || parts[0] != "UPID" {
        return Err(ApiError::parameter("upid", "unable to parse worker upid"));
    }
    let task = call.cluster.tasks.find(upid).ok_or_else(|| ApiError::parameter("upid", "no such task"))?;
    if task.node != call.node() {
        return Err(ApiError::parameter("upid", "no such task"));
    }
    Ok(task)
}

/// `GET status`.
pub fn status(call: &Call) -> ApiResult<Answer> {
    let task = find(call)?;
    if !owns(call, &task) {
        call.require(&format!("/nodes/{}", call.node()), &["Sys.Audit"])?;
    }
    Ok(task.status().into())
}

/// `GET log`.
pub fn log(call: &Call) -> ApiResult<Answer> {
    let task = find(call)?;
    if !owns(call, &task) {
        call.require(&format!("/nodes/{}", call.node()), &["Sys.Audit"])?;
    }
    let start = call.params.number("start").unwrap_or(0);
    let limit = call.params.number("limit").unwrap_or(50);
    if call.params.flag("download") {
        let (lines, _) = task.log(0, 0);
        let text = lines.as_array().into_iter().flatten().filter_map(|line| line["t"].as_str());
        return Ok(Answer::File(text.fold(String::new(), |all, line| all + line + "\n").into()));
    }
    let (lines, total) = task.log(start, limit);
    Ok(Answer::Page(lines, total))
}

/// `DELETE`: asks the task to stop.
pub fn stop(call: &Call) -> ApiResult<Answer> {
    let task = find(call)?;
    if !owns(call, &task) {
        call.require(&format!("/nodes/{}", call.node()), &["Sys.Modify"])?;
    }
    task.stop();
    Ok(Value::Null.into())
}

/// `GET /nodes/{node}/tasks/{upid}`.
pub fn index(call: &Call) -> ApiResult<Answer> {
    find(call)?;
    Ok(serde_json::json!([{"name": "log"}, {"name": "status"}]).into())
}

/// `GET /nodes/{node}/tasks`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let all = call.may(&format!("/nodes/{}", call.node()), &["Sys.Audit"]);
    let source = call.params.get("source").unwrap_or("archive");
    let text = |name: &str| call.params.get(name);
    let since = call.params.number::<i64>("since");
    let until = call.params.number::<i64>("until");
    let wanted = |task: &&Arc<Task>| {
        let exit = task.exit_status();
        let failed = exit.as_deref().is_some_and(|exit| exit != "OK" && !exit.starts_with("WARNINGS: "));
        task.node == call.node()
            && (all || owns(call, task))
            && text("vmid").is_none_or(|vmid| vmid == task.id)
            && text("typefilter").is_none_or(|kind| kind == task.kind)
            && text("userfilter").is_none_or(|user| task.caller.0.contains(user))
            && since.is_none_or(|since| task.start() >= since)
            && until.is_none_or(|until| task.start() <= until)
            && (!call.params.flag("errors") || failed)
            && text("statusfilter").is_none_or(|list| {
                let own = match exit.as_deref() {
                    Some("OK") => "ok",
                    Some(exit) if exit.starts_with("WARNINGS: ") => "warning",
                    Some("unexpected status") | None => "unknown",
                    Some(_) => "error",
                };
                crate::schema::split_list(list).any(|wanted| wanted == own)
            })
            && match source {
                "active" => exit.is_none(),
                "all" => true,
                _ => exit.is_some(),
            }
    };
    let tasks = call.cluster.tasks.all();
    let matching: Vec<Value> = tasks.iter().filter(wanted).map(|task| task.entry()).collect();
    let total = matching.len();
    let start = call.params.number("start").unwrap_or(0);
    let limit = call.params.number("limit").unwrap_or(50);
    let page: Value = matching.into_iter().skip(start).take(limit).collect();
    Ok(Answer::Page(page, total))
}

/// `GET /cluster/tasks`.
pub fn cluster_list(call: &Call) -> ApiResult<Answer> {
    let tasks = call.cluster.tasks.all();
    let own = tasks
        .iter()
        .filter(|task| owns(call, task) || call.may(&format!("/nodes/{}", task.node), &["Sys.Audit"]));
    Ok(own.take(25).map(|task| task.entry()).collect::<Value>().into())
}
