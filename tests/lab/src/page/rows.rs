//! The tables of tasks and of calls.

use std::fmt::Write as _;
use std::time::Duration;

use super::html::escape;
use crate::cluster::{Cluster, RequestRecord};

/// How long a call is shown.
const RECENT: Duration = Duration::from_secs(600);
/// Most rows of a table.
const ROWS: usize = 200;

/// A point of time as hours, minutes and seconds in UTC.
fn clock(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| String::new(), |time| time.strftime("%H:%M:%S").to_string())
}

/// The newest tasks.
pub(super) fn tasks(cluster: &Cluster) -> String {
    let all = cluster.tasks.all();
    if all.is_empty() {
        return "<p class=\"none\">There are none.</p>\n".to_owned();
    }
    let mut text = "<table><thead><tr><th>start (UTC)</th><th>node</th><th>task</th><th>user</th>\
                    <th>state</th></tr></thead><tbody>"
        .to_owned();
    for task in all.iter().take(ROWS) {
        let exit = task.exit_status();
        let class = match exit.as_deref() {
            None => "running",
            Some("OK") => "good",
            Some(exit) if exit.starts_with("WARNINGS: ") => "warn",
            Some(_) => "bad",
        };
        let state = exit.unwrap_or_else(|| {
            let (lines, _) = task.log(0, 0);
            let last = lines.as_array().and_then(|lines| lines.last()?["t"].as_str()).unwrap_or_default();
            if last.is_empty() { "running".to_owned() } else { format!("running: {last}") }
        });
        let _ = write!(
            text,
            "<tr><td data-is=\"start\">{}</td><td data-is=\"node\">{}</td><td data-is=\"task\" title=\"{}\">{} {}</td>\
             <td data-is=\"user\">{}</td><td data-is=\"state\" class=\"{class}\">{}</td></tr>",
            clock(task.start()),
            escape(&task.node),
            escape(&task.upid),
            escape(&task.kind),
            escape(&task.id),
            escape(&task.caller.0),
            escape(&state)
        );
    }
    text + "</tbody></table>\n"
}

/// A call and how often it came in a row.
struct Run<'a> {
    last: &'a RequestRecord,
    count: usize,
}

impl Run<'_> {
    fn takes(&self, call: &RequestRecord) -> bool {
        let key = |call: &RequestRecord| {
            (call.method.clone(), call.path.clone(), call.status, call.agent.clone(), call.error.clone())
        };
        key(self.last) == key(call)
    }
}

/// The calls of the last minutes, newest first; the same call several times in a row is one line.
pub(super) fn calls(cluster: &Cluster) -> String {
    let (elapsed, now) = (cluster.clock.elapsed(), cluster.clock.now());
    let requests = cluster.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut runs: Vec<Run<'_>> = Vec::new();
    for call in requests.iter().rev().take_while(|call| call.at + RECENT >= elapsed) {
        if let Some(run) = runs.last_mut().filter(|run| run.takes(call)) {
            run.count += 1;
        } else if runs.len() == ROWS {
            break;
        } else {
            runs.push(Run { last: call, count: 1 });
        }
    }
    if runs.is_empty() {
        return "<p class=\"none\">There are none.</p>\n".to_owned();
    }
    let mut text = "<table><thead><tr><th>time (UTC)</th><th>client</th><th>caller</th><th>call</th>\
                    <th>status</th><th>took</th></tr></thead><tbody>"
        .to_owned();
    for run in runs {
        let ago = elapsed.saturating_sub(run.last.at).as_secs();
        text.push_str(&row(&run, &clock(now - i64::try_from(ago).unwrap_or(0))));
    }
    text + "</tbody></table>\n"
}

fn row(run: &Run<'_>, time: &str) -> String {
    let call = run.last;
    let (class, status) = match (call.status, call.took) {
        (Some(status), _) if status < 400 => ("good", status.to_string()),
        (Some(status), _) => ("bad", format!("{status} {}", call.error.as_deref().unwrap_or_default())),
        (None, None) => ("running", "at work".to_owned()),
        (None, Some(_)) => ("bad", "connection cut".to_owned()),
    };
    let times =
        if run.count > 1 { format!(" <span class=\"mark\">× {}</span>", run.count) } else { String::new() };
    let took = call.took.map_or(String::new(), |took| format!("{} ms", took.as_millis()));
    format!(
        "<tr><td data-is=\"time\">{time}</td><td data-is=\"client\" title=\"{}\">{}</td><td data-is=\"caller\">{}</td>\
         <td data-is=\"call\" title=\"{}\">{} {}{times}</td><td data-is=\"status\" class=\"{class}\">{}</td>\
         <td data-is=\"took\">{took}</td></tr>",
        escape(&call.agent),
        escape(client(&call.agent)),
        escape(call.caller.as_deref().unwrap_or("nobody")),
        escape(call.route.as_deref().unwrap_or("no route")),
        escape(&call.method),
        escape(&call.path),
        escape(status.trim_end()),
    )
}

/// The client's name for people: the first word of what it calls itself.
fn client(agent: &str) -> &str {
    match agent.split_whitespace().next() {
        None => "unnamed",
        Some("Mozilla/5.0") => "a browser",
        Some(first) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(agent: &str, status: Option<u16>, took: Option<u64>) -> RequestRecord {
        RequestRecord {
            at: Duration::ZERO,
            method: "GET".to_owned(),
            path: "/nodes".to_owned(),
            query: "secret=1".to_owned(),
            status,
            error: status.filter(|status| *status >= 400).map(|_| "no <ticket>".to_owned()),
            took: took.map(Duration::from_millis),
            caller: None,
            route: Some("/nodes".to_owned()),
            agent: agent.to_owned(),
        }
    }

    #[test]
    fn a_call_says_who_what_and_how_it_ended() {
        let shown = |call: &RequestRecord, count| row(&Run { last: call, count }, "10:20:30");
        let good = shown(&call("forge/0.1.0 (x)", Some(200), Some(12)), 3);
        for part in
            ["10:20:30", ">forge/0.1.0<", "GET /nodes <span class=\"mark\">× 3<", "\"good\">200<", "12 ms"]
        {
            assert!(good.contains(part), "{part}: {good}");
        }
        assert!(!good.contains("secret"), "a query may hold a ticket");
        assert!(shown(&call("", Some(401), Some(1)), 1).contains("\"bad\">401 no &lt;ticket&gt;<"));
        assert!(shown(&call("Mozilla/5.0 (X11)", None, None), 1).contains("\"running\">at work<"));
        assert!(shown(&call("x", None, Some(1)), 1).contains("\"bad\">connection cut<"));
        assert!(Run { last: &call("a", Some(200), Some(5)), count: 1 }.takes(&call("a", Some(200), Some(9))));
        assert!(!Run { last: &call("a", Some(200), Some(5)), count: 1 }.takes(&call(
            "a",
            Some(500),
            Some(5)
        )));
    }
}
