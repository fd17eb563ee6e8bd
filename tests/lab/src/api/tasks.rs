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
        return Err(ApiError::parameter("upid", format!("unable to parse worker upid '{upid}'")));
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

/// `GET /nodes/{node}/tasks`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let all = call.may(&format!("/nodes/{}", call.node()), &["Sys.Audit"]);
    let source = call.params.get("source").unwrap_or("archive");
    let wanted = |task: &&Arc<Task>| {
        let running = task.exit_status().is_none();
        task.node == call.node()
            && (all || owns(call, task))
            && call.params.get("vmid").is_none_or(|vmid| vmid == task.id)
            && call.params.get("typefilter").is_none_or(|kind| kind == task.kind)
            && match source {
                "active" => running,
                "all" => true,
                _ => !running,
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
