//! The calls the lab answers.

mod access;
mod agent;
mod clone;
mod cloudinit;
mod cluster;
mod console;
mod destroy;
mod drives;
mod keys;
mod monitor;
mod move_disk;
mod nodes;
mod pools;
mod power;
mod qemu;
mod qemu_config;
mod reassign;
mod resize;
mod restore;
mod rules;
mod sendkey;
mod snapshot;
mod storage;
mod suspend;
mod tags;
mod tasks;
mod template;
mod terminal;
mod vzdump;
mod websocket;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Map, Value};

use crate::auth::Caller;
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::faults::Fault;
use crate::http::upload::Spooled;
use crate::schema::{Param, Params};
use crate::tasks::{Spawn, TaskLog, TaskResult};

pub use console::Consoles;
pub use drives::write_cloudinit;
pub use storage::backup;
pub use vzdump::open as open_archive;

/// A checked call.
pub struct Call {
    /// The lab.
    pub cluster: Arc<Cluster>,
    /// Who calls.
    pub caller: Caller,
    /// Parameters, those of the path included.
    pub params: Params,
    /// Faults that fired; tasks look at theirs.
    pub faults: Vec<Fault>,
    /// Headers of the request.
    pub headers: http::HeaderMap,
    /// The connection, when the client asks to upgrade it.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// The file of an upload.
    pub upload: Option<Spooled>,
}

/// What a task works on: a VM, or a volume.
pub struct TaskId(String);

impl From<u32> for TaskId {
    fn from(vmid: u32) -> Self {
        TaskId(vmid.to_string())
    }
}

impl From<String> for TaskId {
    fn from(volid: String) -> Self {
        TaskId(volid)
    }
}

/// What a call returns.
pub enum Answer {
    /// `{"data":…}`.
    Data(Value),
    /// `{"data":…,"total":…}`.
    Page(Value, usize),
    /// Bytes as they are, not JSON.
    File(Bytes),
    /// A switch to another protocol.
    Upgrade(Box<Response<Full<Bytes>>>),
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Answer::Data(value)
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Answer::Data(text.into())
    }
}

impl Call {
    /// The node of the path.
    pub fn node(&self) -> &str {
        self.params.text("node")
    }

    /// The VM of the path.
    pub fn vmid(&self) -> u32 {
        self.params.vmid()
    }

    /// Demands privileges at a path.
    ///
    /// # Errors
    /// The 403 that names the first missing one.
    pub fn require(&self, path: &str, privileges: &[&str]) -> ApiResult<()> {
        self.cluster.auth().require(&self.caller, path, privileges)
    }

    /// Demands one of the privileges at a path.
    ///
    /// # Errors
    /// The 403 that names them all.
    pub fn require_any(&self, path: &str, privileges: &[&str]) -> ApiResult<()> {
        self.cluster.auth().require_any(&self.caller, path, privileges)
    }

    /// Whether the caller has one of the privileges at a path.
    pub fn may(&self, path: &str, privileges: &[&str]) -> bool {
        self.require_any(path, privileges).is_ok()
    }

    /// The answer of a call that started a task and may wait for it: null when it ended well in time, its error when it
    /// failed, else the UPID.
    ///
    /// # Errors
    /// The task failed in time.
    pub async fn wait_for(&self, answer: Answer, seconds: Option<u64>) -> ApiResult<Answer> {
        let (Some(seconds), Answer::Data(Value::String(upid))) = (seconds, &answer) else {
            return Ok(answer);
        };
        let Some(task) = self.cluster.tasks.find(upid) else { return Ok(answer) };
        let time = std::time::Duration::from_secs(seconds);
        match self.cluster.clock.timeout(time, task.ended()).await {
            Some(exit) if exit == "OK" || exit.starts_with("WARNINGS: ") => Ok(Value::Null.into()),
            Some(exit) => Err(ApiError::die(exit)),
            None => Ok(answer),
        }
    }

    /// Starts a task on the node of the path and returns its UPID.
    pub fn spawn<W>(
        &self,
        kind: &str,
        id: impl Into<TaskId>,
        work: impl FnOnce(TaskLog) -> W,
    ) -> ApiResult<Answer>
    where
        W: Future<Output = TaskResult> + Send + 'static,
    {
        self.spawn_with_undo(kind, id, work, std::future::ready(()))
    }

    /// As [`Call::spawn`], with what must happen when the work fails or is stopped.
    pub fn spawn_with_undo<W, U>(
        &self,
        kind: &str,
        id: impl Into<TaskId>,
        work: impl FnOnce(TaskLog) -> W,
        undo: U,
    ) -> ApiResult<Answer>
    where
        W: Future<Output = TaskResult> + Send + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        let spawn = Spawn {
            node: self.node(),
            kind,
            id: id.into().0,
            caller: &self.caller,
            faults: self.faults.clone(),
        };
        Ok(self.cluster.tasks.spawn_with_undo(spawn, work, undo).into())
    }
}

/// Parameters before they are checked, for the permission check, which Proxmox makes first.
pub fn loose_params(given: &Map<String, Value>) -> Params {
    let one = |value: &Value| match value {
        Value::String(text) => Some(Param::One(text.clone())),
        Value::Number(number) => Some(Param::One(number.to_string())),
        Value::Bool(flag) => Some(Param::One(u8::from(*flag).to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    Params(given.iter().filter_map(|(name, value)| Some((name.clone(), one(value)?))).collect())
}

/// Answers a call; `None` for a route that is in the schema but not in the lab.
pub async fn dispatch(method: &str, template: &str, call: Call) -> Option<ApiResult<Answer>> {
    if let Some(below) = template.strip_prefix("/nodes/{node}/qemu/{vmid}") {
        return vm(method, below, call).await;
    }
    if let Some(below) = template.strip_prefix("/nodes/{node}/storage") {
        return storage::dispatch(method, below, call).await;
    }
    if let Some(below) = template.strip_prefix("/access") {
        return access::dispatch(method, below, &call);
    }
    if let Some(below) = template.strip_prefix("/nodes/{node}/capabilities") {
        return nodes::capabilities(below);
    }
    Some(match (method, template) {
        ("GET", "/version" | "/nodes/{node}/version") => cluster::version(&call),
        ("GET", "/cluster") => cluster::index(),
        ("GET", "/cluster/nextid") => cluster::next_id(&call),
        ("GET", "/cluster/options") => cluster::options(&call),
        ("PUT", "/cluster/options") => cluster::set_options(&call),
        ("GET", "/cluster/resources") => cluster::resources(&call),
        ("GET", "/cluster/sdn/vnets") => cluster::vnets(&call),
        ("GET", "/cluster/status") => cluster::status(&call),
        ("GET", "/cluster/tasks") => tasks::cluster_list(&call),
        ("GET", "/pools") => pools::list(&call),
        ("POST", "/pools") => pools::create(&call),
        ("PUT", "/pools" | "/pools/{poolid}") => pools::update(&call),
        ("DELETE", "/pools" | "/pools/{poolid}") => pools::remove(&call),
        ("GET", "/pools/{poolid}") => pools::read(&call),
        ("GET", "/storage") => storage::configurations(&call),
        ("GET", "/storage/{storage}") => storage::read_configuration(&call),
        ("GET", "/nodes") => nodes::list(&call),
        ("GET", "/nodes/{node}") => nodes::index(),
        ("GET", "/nodes/{node}/status") => nodes::status(&call),
        ("GET", "/nodes/{node}/time") => nodes::time(&call),
        ("GET", "/nodes/{node}/network") => nodes::networks(&call),
        ("GET", "/nodes/{node}/network/{iface}") => nodes::network(&call),
        ("GET", "/nodes/{node}/query-url-metadata") => storage::query_url_metadata(&call).await,
        ("GET", "/nodes/{node}/tasks") => tasks::list(&call),
        ("GET", "/nodes/{node}/tasks/{upid}") => tasks::index(&call),
        ("GET", "/nodes/{node}/tasks/{upid}/status") => tasks::status(&call),
        ("GET", "/nodes/{node}/tasks/{upid}/log") => tasks::log(&call),
        ("DELETE", "/nodes/{node}/tasks/{upid}") => tasks::stop(&call),
        ("POST", "/nodes/{node}/vzdump") => vzdump::vzdump(&call),
        ("GET", "/nodes/{node}/vzdump/extractconfig") => vzdump::extract_config(&call),
        ("GET", "/nodes/{node}/qemu") => qemu::list(&call),
        ("POST", "/nodes/{node}/qemu") => qemu::create(&call),
        _ => return None,
    })
}

async fn vm(method: &str, below: &str, call: Call) -> Option<ApiResult<Answer>> {
    // Proxmox reads the configuration first in all of these.
    if let Err(error) = call.cluster.vm(call.node(), call.vmid()) {
        return Some(Err(error));
    }
    Some(match (method, below) {
        ("DELETE", "") => destroy::destroy(&call),
        ("GET", "/config") => qemu_config::get(&call),
        ("GET", "/pending") => qemu_config::pending(&call),
        ("PUT", "/config") => qemu_config::put(call).await,
        ("POST", "/config") => qemu_config::post(call).await,
        ("PUT", "/resize") => resize::resize(&call),
        ("PUT", "/unlink") => qemu_config::unlink(call).await,
        ("GET", "/status/current") => qemu::current(&call).await,
        ("POST", "/status/reboot") => suspend::reboot(&call),
        ("POST", "/status/suspend") => suspend::suspend(&call),
        ("POST", "/status/resume") => suspend::resume(&call),
        ("GET", "/snapshot") => snapshot::list(&call),
        ("POST", "/snapshot") => snapshot::create(&call),
        ("GET", "/snapshot/{snapname}") => snapshot::index(&call),
        ("DELETE", "/snapshot/{snapname}") => snapshot::delete(&call),
        ("GET", "/snapshot/{snapname}/config") => snapshot::config(&call),
        ("PUT", "/snapshot/{snapname}/config") => snapshot::describe(&call),
        ("POST", "/snapshot/{snapname}/rollback") => snapshot::rollback(&call),
        ("GET", "/feature") => snapshot::feature(&call),
        ("POST", "/monitor") => monitor::monitor(call).await,
        ("POST", "/move_disk") => move_disk::move_disk(&call),
        ("POST", "/status/start") => power::start(&call),
        ("POST", "/status/stop") => power::stop(&call),
        ("POST", "/status/shutdown") => power::shutdown(&call),
        ("POST", "/status/reset") => power::reset(&call),
        ("POST", "/clone") => clone::clone(call).await,
        ("POST", "/template") => template::template(&call),
        ("PUT", "/sendkey") => sendkey::sendkey(call).await,
        ("POST", "/termproxy") => terminal::proxy(&call),
        ("POST", "/vncproxy") => console::proxy(&call),
        ("GET", "/vncwebsocket") => console::websocket(call).await,
        ("GET", "/cloudinit") => cloudinit::pending(&call),
        ("GET", "/cloudinit/dump") => cloudinit::dump(&call),
        ("PUT", "/cloudinit") => cloudinit::regenerate(&call).await,
        (_, route) if route.starts_with("/agent") => {
            return agent::agent(method, &route["/agent".len()..], call).await;
        }
        _ => return None,
    })
}

/// A 500 for a VM that must run.
fn not_running(vmid: u32) -> ApiError {
    ApiError::die(format!("VM {vmid} not running"))
}
