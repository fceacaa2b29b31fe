//! What an agent can do: processes, which run until stopped, and tasks, which end by themselves.

use super::session::OpSession;
use serde_json::{Map, Value, json};
use std::pin::Pin;

/// Parameters of a start, checked and completed.
pub type Params = Map<String, Value>;
/// How a run ended: success or failure, each with the words for its last message.
pub type OpOutcome = Result<String, String>;

type Code = dyn Fn(OpSession, Params) -> Pin<Box<dyn Future<Output = OpOutcome> + Send>> + Send + Sync;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// A number; whole ones are taken and made floating.
    Float,
    /// A whole number.
    Int,
    /// A text.
    Text,
    /// True or false.
    Bool,
    /// A list of anything.
    List,
    /// Anything.
    Any,
}

/// A declared parameter.
#[derive(Debug, Clone)]
pub struct Param {
    name: String,
    kind: ParamKind,
    default: Option<Value>,
}

impl Param {
    /// One that a start must give.
    pub fn required(name: &str, kind: ParamKind) -> Self {
        Self { name: name.to_owned(), kind, default: None }
    }

    /// One that has this value (perhaps null) when a start does not give it.
    pub fn optional(name: &str, kind: ParamKind, default: impl Into<Value>) -> Self {
        Self { default: Some(default.into()), ..Self::required(name, kind) }
    }

    fn take(&self, given: Option<&Value>) -> Result<Value, String> {
        let name = &self.name;
        let value = match (given, &self.default) {
            (Some(value), _) if !value.is_null() => value.clone(),
            (_, Some(default)) => default.clone(),
            (_, None) => return Err(format!("Param '{name}' is required and must not be None")),
        };
        if value.is_null() {
            return Ok(value);
        }
        // In Python a bool is an int, and an int is taken for a float.
        let whole = |value: &Value| value.as_bool().map(i64::from).or_else(|| value.as_i64());
        let (fitting, class) = match self.kind {
            ParamKind::Float => {
                let number = value.as_f64().or_else(|| whole(&value).map(|number| number as f64));
                (number.map(Value::from), "float")
            }
            ParamKind::Int => (whole(&value).map(Value::from).or_else(|| value.as_u64().map(Value::from)), "int"),
            ParamKind::Text => (value.is_string().then(|| value.clone()), "str"),
            ParamKind::Bool => (value.is_boolean().then(|| value.clone()), "bool"),
            ParamKind::List => (value.is_array().then(|| value.clone()), "list"),
            ParamKind::Any => (Some(value.clone()), "object"),
        };
        let value = python_str(&value);
        fitting.ok_or_else(|| format!("Param '{name}'={value} is not of required type (<class '{class}'>)"))
    }
}

/// Whether an operation runs until stopped or ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpType {
    /// Until it is stopped.
    Process,
    /// It ends by itself; some can be aborted.
    Task {
        /// Whether it heeds [`OpSession::stop_requested`].
        abortable: bool,
    },
}

impl OpType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Task { .. } => "task",
        }
    }
}

/// A process or task of an agent.
pub struct Operation {
    pub(super) name: String,
    pub(super) op_type: OpType,
    pub(super) min_privs: u8,
    pub(super) at_start: Option<Params>,
    pub(super) code: Box<Code>,
    docstring: Option<String>,
    params: Option<Vec<Param>>,
}

impl Operation {
    /// A process: `code` runs as an asynchronous task until [`OpSession::stop_requested`].
    pub fn process<F, R>(name: &str, code: F) -> Self
    where
        F: Fn(OpSession, Params) -> R + Send + Sync + 'static,
        R: Future<Output = OpOutcome> + Send + 'static,
    {
        Self {
            name: name.to_owned(),
            op_type: OpType::Process,
            min_privs: 1,
            at_start: None,
            code: Box::new(move |session, params| Box::pin(code(session, params))),
            docstring: None,
            params: None,
        }
    }

    /// A task: `code` runs as an asynchronous task and ends by itself.
    pub fn task<F, R>(name: &str, code: F) -> Self
    where
        F: Fn(OpSession, Params) -> R + Send + Sync + 'static,
        R: Future<Output = OpOutcome> + Send + 'static,
    {
        Self { op_type: OpType::Task { abortable: false }, ..Self::process(name, code) }
    }

    /// A task that ends early at [`OpSession::stop_requested`].
    #[must_use]
    pub fn abortable(mut self) -> Self {
        if let OpType::Task { abortable } = &mut self.op_type {
            *abortable = true;
        }
        self
    }

    /// What clients show to people.
    #[must_use]
    pub fn docstring(mut self, text: &str) -> Self {
        self.docstring = Some(text.to_owned());
        self
    }

    /// The credential level (1 to 3) that start, stop and abort need; 1 unless said.
    #[must_use]
    pub fn min_privs(mut self, level: u8) -> Self {
        self.min_privs = level.clamp(1, 3);
        self
    }

    /// Declares a parameter. Once one is declared, a start that gives others is refused.
    #[must_use]
    pub fn param(mut self, param: Param) -> Self {
        self.params.get_or_insert_default().push(param);
        self
    }

    /// Starts it with these parameters when the agent begins to run.
    #[must_use]
    pub fn at_start(mut self, params: Params) -> Self {
        self.at_start = Some(params);
        self
    }

    /// What a start gave, checked and completed, or the words to refuse it with.
    pub(super) fn check(&self, given: &Value) -> Result<Params, String> {
        let none = Params::new();
        let given = match given {
            Value::Object(given) => given,
            Value::Null => &none,
            _ if self.params.is_none() => &none,
            _ => return Err("CRASH: during param pre-processing: params is no object of names and values".to_owned()),
        };
        let Some(declared) = &self.params else { return Ok(given.clone()) };
        let mut params = Params::new();
        for param in declared {
            params.insert(param.name.clone(), param.take(given.get(&param.name))?);
        }
        let stray: Vec<Value> =
            given.keys().filter(|key| !params.contains_key(*key)).map(|key| key.clone().into()).collect();
        if !stray.is_empty() {
            return Err(format!("params included unexpected values: {}", python_repr(&stray.into())));
        }
        Ok(params)
    }

    /// What `get_api` shows of it.
    pub(super) fn encoded(&self) -> Value {
        let mut info = json!({
            // As of Python's operations that have a thread of their own.
            "blocking": true,
            "docstring": self.docstring,
            "op_type": self.op_type.name(),
            "min_privs": self.min_privs,
        });
        if let OpType::Task { abortable } = self.op_type {
            info["abortable"] = abortable.into();
        }
        info
    }
}

/// A value as Python's `str` shows it.
pub(super) fn python_str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => python_repr(other),
    }
}

fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(python_repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", python_repr(&key.clone().into()), python_repr(value)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay() -> Operation {
        Operation::task("delay", |_, _| async { Ok(String::new()) })
            .param(Param::required("delay", ParamKind::Float))
            .param(Param::optional("mode", ParamKind::Text, "slow"))
            .param(Param::optional("count", ParamKind::Int, Value::Null))
            .param(Param::optional("quiet", ParamKind::Bool, Value::Null))
    }

    #[test]
    fn parameters_are_checked_and_completed() {
        let params = delay().check(&json!({"delay": 2})).unwrap();
        assert_eq!(Value::from(params).to_string(), r#"{"count":null,"delay":2.0,"mode":"slow","quiet":null}"#);
        let params = delay().check(&json!({"delay": 2.5, "count": true, "mode": "fast", "quiet": true})).unwrap();
        assert_eq!(Value::from(params), json!({"count": 1, "delay": 2.5, "mode": "fast", "quiet": true}));
    }

    #[test]
    fn wrong_parameters_are_refused_in_the_words_of_the_python_agents() {
        for (given, words) in [
            (json!({"delay": "x"}), "Param 'delay'=x is not of required type (<class 'float'>)"),
            (json!({"delay": 1, "count": 1.5}), "Param 'count'=1.5 is not of required type (<class 'int'>)"),
            (json!({"delay": 1, "quiet": 1}), "Param 'quiet'=1 is not of required type (<class 'bool'>)"),
            (json!({"delay": 1, "zzz": 1}), "params included unexpected values: ['zzz']"),
            (json!({}), "Param 'delay' is required and must not be None"),
            (Value::Null, "Param 'delay' is required and must not be None"),
            (json!({"delay": null}), "Param 'delay' is required and must not be None"),
            (
                json!({"delay": [true, "it's"]}),
                "Param 'delay'=[True, \"it's\"] is not of required type (<class 'float'>)",
            ),
        ] {
            assert_eq!(delay().check(&given), Err(words.to_owned()));
        }
        assert!(delay().check(&json!([1])).unwrap_err().starts_with("CRASH: during param pre-processing: "));
    }

    #[test]
    fn without_declaration_anything_goes() {
        let run = Operation::process("run", |_, _| async { Ok(String::new()) });
        assert_eq!(run.check(&json!({"x": 1})).unwrap().len(), 1);
        assert!(run.check(&json!("text")).unwrap().is_empty());
        let info = json!({"blocking": true, "docstring": null, "op_type": "process", "min_privs": 1});
        assert_eq!(run.encoded(), info);
        assert_eq!(delay().abortable().encoded()["abortable"], true);
    }
}
