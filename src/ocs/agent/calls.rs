//! The two procedures of an agent: what it can do, and doing it.

use super::{AgentCore, Caller, MESSAGE_BUDGET, OpType, StartReply, ask_to_end};
use crate::ocs::lock;
use crate::ocs::operation::python_str;
use crate::ocs::session::{OpSession, OpStatus};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What a call gives: a result, words for an error, or a result that takes its time.
pub(super) enum CallAnswer {
    Now(Result<Value, String>),
    Wait { session: OpSession, limit: Option<f64> },
}

impl AgentCore {
    /// The management procedure.
    pub(super) fn manage(&self, args: &[Value], kwargs: &Map<String, Value>) -> Result<Value, String> {
        let known: Map<_, _> =
            kwargs.iter().filter(|(key, _)| *key == "q").map(|(k, v)| (k.clone(), v.clone())).collect();
        let bound = bind("OCSAgent._management_handler()", &["q"], 1, args, &known)?;
        Ok(match bound[0].as_str() {
            Some("get_api") => json!({
                "agent_class": self.config.agent_class,
                "instance_hostname": rustix::system::uname().nodename().to_string_lossy(),
                "instance_pid": std::process::id(),
                "feeds": self.encoded_feeds(),
                "processes": self.encoded_operations(true),
                "tasks": self.encoded_operations(false),
                "access_control": lock(&self.access).encoded(),
            }),
            Some("get_tasks") => self.encoded_operations(false),
            Some("get_processes") => self.encoded_operations(true),
            Some("get_feeds") => self.encoded_feeds(),
            Some("get_agent_class") => self.config.agent_class.clone().into(),
            _ => Value::Null,
        })
    }

    /// The operations procedure.
    pub(super) fn operate(&self, args: &[Value], kwargs: &Map<String, Value>) -> CallAnswer {
        match self.try_operate(args, kwargs) {
            Ok(answer) => answer,
            Err(text) => CallAnswer::Now(Err(text)),
        }
    }

    fn try_operate(&self, args: &[Value], kwargs: &Map<String, Value>) -> Result<CallAnswer, String> {
        const NAMES: [&str; 5] = ["action", "op_name", "params", "timeout", "password"];
        let bound = bind("OCSAgent._ops_handler()", &NAMES, 2, args, kwargs)?;
        let [action, name, params, timeout, password] = &bound[..] else {
            return Err("OCSAgent._ops_handler() takes five arguments".to_owned());
        };
        let name = python_str(name);
        let password = match password {
            Value::Null => "",
            Value::String(password) => password,
            _ => return Err("OCSAgent._ops_handler() takes a text as password".to_owned()),
        };
        let reply = match action.as_str() {
            Some("start") => self.start(&name, params, &Caller::Client { password }),
            Some("stop") => self.stop("stop", &name, password),
            Some("abort") => self.stop("abort", &name, password),
            Some("status") => self.status(&name),
            Some("wait") => {
                let limit = match timeout {
                    Value::Null => None,
                    other => Some(other.as_f64().ok_or("OCSAgent._ops_handler() takes seconds as timeout")?),
                };
                if self.operation(&name).is_none() {
                    StartReply(-1, format!("Unknown operation \"{name}\"."), None)
                } else if let Some(session) = self.session(&name) {
                    return Ok(CallAnswer::Wait { session, limit });
                } else {
                    StartReply(0, "Idle.".to_owned(), None)
                }
            }
            _ => StartReply(-1, format!("No implementation for \"{name}\""), None),
        };
        Ok(CallAnswer::Now(Ok(reply.encoded())))
    }

    fn stop(&self, action: &str, name: &str, password: &str) -> StartReply {
        let Some(operation) = self.operation(name) else {
            return StartReply(-1, format!("No operation called \"{name}\"."), None);
        };
        let op_type = operation.op_type.name();
        if (action == "stop") != (operation.op_type == OpType::Process) {
            // The braces are Python's; its agents say so too.
            return StartReply(-1, format!("Cannot \"{action}\" \"{name}\" because it is a \"{{op_type}}\"."), None);
        }
        if let Err(text) = lock(&self.access).check(password, operation.min_privs) {
            return StartReply(-1, text, None);
        }
        let Some(session) = self.session(name) else {
            return StartReply(-1, "No session active.".to_owned(), None);
        };
        match session.status() {
            OpStatus::Done => return StartReply(-1, "The operation is already done".to_owned(), None),
            OpStatus::Stopping => return StartReply(-1, "The operation is already stopping".to_owned(), None),
            OpStatus::Starting | OpStatus::Running => {}
        }
        if operation.op_type == (OpType::Task { abortable: false }) {
            return StartReply::with(-1, format!("Task \"{name}\" cannot be aborted."), session);
        }
        ask_to_end(&session);
        // The quotation mark that opens nowhere is Python's.
        StartReply::with(0, format!("Requested {action} on {op_type} {name}\"."), session)
    }

    fn status(&self, name: &str) -> StartReply {
        if self.operation(name).is_none() {
            return StartReply(-1, format!("No task or process called \"{name}\""), None);
        }
        match self.session(name) {
            Some(session) => StartReply::with(0, "Session active.".to_owned(), session),
            None => StartReply(0, "No session active.".to_owned(), None),
        }
    }

    fn encoded_feeds(&self) -> Value {
        lock(&self.feeds).iter().map(|feed| json!([feed.name, feed.encoded()])).collect()
    }

    fn encoded_operations(&self, processes: bool) -> Value {
        let operations = lock(&self.operations).clone();
        let budget = MESSAGE_BUDGET / operations.len().max(1);
        let wanted = operations.iter().filter(|(_, operation)| (operation.op_type == OpType::Process) == processes);
        wanted
            .map(|(name, operation)| {
                let idle = || json!({"op_name": name, "status": "no_history"});
                let session = self.session(name).map_or_else(idle, |session| session.encoded(budget));
                json!([name, session, operation.encoded()])
            })
            .collect()
    }
}

impl StartReply {
    fn encoded(self) -> Value {
        let Self(code, text, session) = self;
        json!([code, text, session.map_or_else(|| json!({}), |(_, encoded)| encoded)])
    }
}

/// Waits for the end of a run, for `limit` seconds at most.
pub(super) async fn wait(session: OpSession, limit: Option<f64>) -> Value {
    let name = session.op_name().to_owned();
    let ended = match limit {
        _ if session.status() == OpStatus::Done => true,
        None => {
            session.done().await;
            true
        }
        // More than a Duration holds is for ever; less than nothing is at once.
        Some(seconds) => match Duration::try_from_secs_f64(seconds) {
            Ok(limit) => tokio::time::timeout(limit, session.done()).await.is_ok(),
            Err(_) if seconds > 0.0 => {
                session.done().await;
                true
            }
            Err(_) => false,
        },
    };
    let reply = if ended {
        let word = if session.success() == Some(true) { "SUCCEEDED" } else { "FAILED" };
        StartReply::with(0, format!("Operation \"{name}\" is currently not running ({word})."), session)
    } else {
        StartReply::with(1, format!("Operation \"{name}\" still running; wait timed out."), session)
    };
    reply.encoded()
}

/// Arguments in the order of `names`, null where absent, or the words Python has for what does not fit.
fn bind(
    procedure: &str,
    names: &[&str],
    required: usize,
    args: &[Value],
    kwargs: &Map<String, Value>,
) -> Result<Vec<Value>, String> {
    if args.len() > names.len() {
        let (most, given) = (names.len() + 1, args.len() + 1);
        return Err(format!("{procedure} takes at most {most} positional arguments but {given} were given"));
    }
    let mut bound: Vec<Option<Value>> = args.iter().cloned().map(Some).collect();
    bound.resize(names.len(), None);
    for (key, value) in kwargs {
        let at = names.iter().position(|name| name == key);
        match at.and_then(|at| bound.get_mut(at)) {
            None => return Err(format!("{procedure} got an unexpected keyword argument '{key}'")),
            Some(Some(_)) => return Err(format!("{procedure} got multiple values for argument '{key}'")),
            Some(free) => *free = Some(value.clone()),
        }
    }
    let pairs = names.iter().zip(&bound).take(required);
    let missing: Vec<_> = pairs.filter(|(_, value)| value.is_none()).map(|(name, _)| format!("'{name}'")).collect();
    if !missing.is_empty() {
        let plural = if missing.len() == 1 { "" } else { "s" };
        let (number, list) = (missing.len(), missing.join(" and "));
        return Err(format!("{procedure} missing {number} required positional argument{plural}: {list}"));
    }
    Ok(bound.into_iter().map(Option::unwrap_or_default).collect())
}
