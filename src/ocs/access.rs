//! Who may do what: access control of OCS, version 1.

use crate::clock::unix_now;
use md5::{Digest, Md5};
use serde_json::{Value, json};

const VERSION: u64 = 1;
/// The level an agent itself has under an access policy.
const SUPERUSER: u8 = 4;

/// A policy that is none.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The policy is not among those known. The text is not shown, for it may hold passwords.
    #[error("Access policy has no known form; give none, override:PASSWORD2,PASSWORD3 or director:INSTANCE-ID")]
    Unknown,
    /// An override needs two passwords.
    #[error("Access policy override needs two passwords; give override:PASSWORD2,PASSWORD3")]
    Passwords,
    /// A message of the director is not understood.
    #[error("Access rules from the director lack {0}; the former rules stay")]
    Rules(&'static str),
    /// A message of another version of access control.
    #[error("Access control version mismatch: director={director}, agent={VERSION}; the former rules stay")]
    Version {
        /// As it came.
        director: Value,
    },
}

/// The rules in force for one agent.
pub(crate) struct AgentAccess {
    policy: &'static str,
    director: Option<String>,
    instance_id: String,
    agent_class: String,
    rules: Vec<AccessRule>,
    update_timestamp: f64,
    update_count: u64,
    step: Value,
}

struct AccessRule {
    password: Password,
    level: u8,
    scope: RuleScope,
    lockout: String,
    lockout_levels: Vec<u8>,
}

enum Password {
    Blocked,
    Free,
    Clear(String),
    Md5(String),
}

#[derive(Default)]
struct RuleScope {
    all: bool,
    agent_class: Option<String>,
    instance_id: Option<String>,
}

impl AgentAccess {
    /// The rules of a policy text for this agent; no text is `none`.
    pub(crate) fn new(policy: Option<&str>, instance_id: &str, agent_class: &str) -> Result<Self, AccessError> {
        let rule = |level, password| AccessRule {
            password,
            level,
            scope: RuleScope { all: true, ..RuleScope::default() },
            lockout: String::new(),
            lockout_levels: Vec::new(),
        };
        let (policy, director, rules) = match policy.unwrap_or("none") {
            "" | "none" => ("none", None, Vec::new()),
            other => match other.split_once(':').ok_or(AccessError::Unknown)? {
                ("override", passwords) => {
                    let mut words = passwords.split(',');
                    let (Some(second), Some(third)) = (words.next(), words.next()) else {
                        return Err(AccessError::Passwords);
                    };
                    let clear = |word: &str| Password::new("none", word);
                    ("override", None, vec![rule(1, Password::Free), rule(2, clear(second)), rule(3, clear(third))])
                }
                ("director", "") => ("director", Some("access-director".to_owned()), Vec::new()),
                ("director", id) => ("director", Some(id.to_owned()), Vec::new()),
                _ => return Err(AccessError::Unknown),
            },
        };
        Ok(Self {
            policy,
            director,
            instance_id: instance_id.to_owned(),
            agent_class: agent_class.to_owned(),
            rules,
            update_timestamp: unix_now(),
            update_count: 0,
            step: 0.into(),
        })
    }

    /// The instance id of the director, if the policy has one.
    pub(crate) fn director(&self) -> Option<&str> {
        self.director.as_deref()
    }

    /// The level of what the agent starts by itself.
    pub(crate) fn own_level(&self) -> u8 {
        if self.policy == "none" { 1 } else { SUPERUSER }
    }

    /// The level a password gives, and the names of the lockouts that lowered it.
    fn level(&self, password: &str) -> (u8, Vec<&str>) {
        if self.policy == "none" {
            return (1, Vec::new());
        }
        let mut level = 0;
        let mut blocked = Vec::new();
        let mut lockouts = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.scope.matches(&self.agent_class, &self.instance_id)) {
            if rule.password.matches(password) {
                level = level.max(rule.level);
            } else if !rule.lockout_levels.is_empty() {
                blocked.extend(&rule.lockout_levels);
                lockouts.push(rule.lockout.as_str());
            }
        }
        let before = level;
        while level > 0 && blocked.contains(&level) {
            level -= 1;
        }
        if level == before {
            lockouts.clear();
        }
        lockouts.sort_unstable();
        lockouts.dedup();
        (level, lockouts)
    }

    /// The level of a caller, or what to say to one whose level is below `required`.
    pub(crate) fn check(&self, password: &str, required: u8) -> Result<u8, String> {
        match self.level(password).0 {
            level if level >= required => Ok(level),
            level => Err(format!(
                "The action requires credential level {} but the client has only level {}",
                name(required),
                name(level)
            )),
        }
    }

    /// The same for a start: there, and there alone, Python's agents name the lockouts.
    pub(crate) fn check_start(&self, password: &str, required: u8) -> Result<u8, String> {
        self.check(password, required).map_err(|text| {
            let lockouts: Vec<_> = self.level(password).1.iter().map(|lockout| format!("'{lockout}'")).collect();
            match lockouts.is_empty() {
                true => text,
                false => format!("{text} Privileges diminished; lockouts active: [{}]", lockouts.join(", ")),
            }
        })
    }

    /// Takes a message of the director in; whether it was for this agent. What is not understood changes nothing.
    pub(crate) fn update(&mut self, message: &Value) -> Result<bool, AccessError> {
        let version = message.get("ac_version").cloned().unwrap_or_default();
        if version != VERSION {
            return Err(AccessError::Version { director: version });
        }
        let reset = message.get("reset").and_then(Value::as_bool).unwrap_or(false);
        let ours = message.get("target").and_then(Value::as_str) == Some(self.instance_id.as_str());
        if !reset && !ours {
            return Ok(false);
        }
        let rules = message.get("rules").and_then(Value::as_array).ok_or(AccessError::Rules("a list of rules"))?;
        let rules = rules.iter().map(AccessRule::read).collect::<Result<Vec<_>, _>>()?;
        self.step = message.get("step").filter(|step| step.is_number()).ok_or(AccessError::Rules("a step"))?.clone();
        self.rules = rules;
        self.update_count += 1;
        self.update_timestamp = unix_now();
        Ok(true)
    }

    /// What `get_api` shows of it.
    pub(crate) fn encoded(&self) -> Value {
        json!({
            "version": VERSION,
            "policy": self.policy,
            "update_timestamp": self.update_timestamp,
            "update_count": self.update_count,
            "step": self.step,
        })
    }
}

fn name(level: u8) -> &'static str {
    match level {
        0 => "0-BLOCKED",
        1 => "1-BASIC",
        2 => "2-ADVANCED",
        3 => "3-FULL",
        _ => "4-SUPERUSER",
    }
}

impl AccessRule {
    fn read(rule: &Value) -> Result<Self, AccessError> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let level =
            |value: &Value| value.as_u64().filter(|level| *level <= 4).and_then(|level| u8::try_from(level).ok());
        let password = match rule.get("hashed_pass") {
            Some(Value::Object(pass)) => {
                let hash = text(pass.get("hash")).ok_or(AccessError::Rules("the name of a hash"))?;
                Password::new(&hash, text(pass.get("value")).unwrap_or_default().as_str())
            }
            _ => Password::Blocked,
        };
        let scope = match rule.get("scope_spec") {
            Some(Value::Object(scope)) => RuleScope {
                all: scope.get("default").and_then(Value::as_bool).unwrap_or(false),
                agent_class: text(scope.get("agent_class")),
                instance_id: text(scope.get("instance_id")),
            },
            _ => RuleScope { all: true, ..RuleScope::default() },
        };
        let levels = rule.get("lockout_levels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let word = |key| text(rule.get(key)).unwrap_or_else(|| "None".to_owned());
        Ok(Self {
            password,
            level: rule.get("cred_level").and_then(level).ok_or(AccessError::Rules("a credential level"))?,
            scope,
            lockout: format!("{}[{}]", word("lockout_id"), word("lockout_owner")),
            lockout_levels: levels.iter().filter_map(level).collect(),
        })
    }
}

impl Password {
    fn new(hash: &str, value: &str) -> Self {
        match (hash, value) {
            ("none" | "md5", "") => Self::Free,
            ("none", _) => Self::Clear(value.to_owned()),
            ("md5", _) => Self::Md5(value.to_owned()),
            // A hash we do not know lets nobody in.
            _ => Self::Blocked,
        }
    }

    fn matches(&self, password: &str) -> bool {
        match self {
            Self::Blocked => false,
            Self::Free => true,
            Self::Clear(value) => password == value,
            Self::Md5(value) => {
                let digest = Md5::digest(password.as_bytes());
                let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                hex == *value
            }
        }
    }
}

impl RuleScope {
    fn matches(&self, agent_class: &str, instance_id: &str) -> bool {
        let fits = |pattern: &Option<String>, word| pattern.as_ref().is_none_or(|pattern| matches_list(pattern, word));
        self.all
            || (self.agent_class.is_some() || self.instance_id.is_some())
                && fits(&self.agent_class, agent_class)
                && fits(&self.instance_id, instance_id)
    }
}

/// A comma list of globs; `!` before one excludes.
fn matches_list(list: &str, word: &str) -> bool {
    let word: Vec<char> = word.chars().collect();
    let globs = || list.split(',').filter(|glob| !glob.is_empty() && *glob != "!");
    let hits = |glob: &str| matches_glob(&glob.chars().collect::<Vec<_>>(), &word);
    let mut wanted = globs().filter(|glob| !glob.starts_with('!')).peekable();
    let excluded = globs().filter_map(|glob| glob.strip_prefix('!')).any(hits);
    !excluded && (wanted.peek().is_none() || wanted.any(hits))
}

/// `*`, `?`, `[abc]`, `[a-c]`, `[!abc]`, as Python's `fnmatch`. Takes no more than pattern times word steps.
fn matches_glob(glob: &[char], word: &[char]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star = None;
    while pos < word.len() {
        match step(&glob[at..], word[pos]) {
            Some(length) => (at, pos) = (at + length, pos + 1),
            None if glob.get(at) == Some(&'*') => {
                star = Some((at, pos));
                at += 1;
            }
            None => match &mut star {
                Some((back, from)) => {
                    *from += 1;
                    (at, pos) = (*back + 1, *from);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

/// How many characters of the glob this character of the word uses up, if it fits.
fn step(glob: &[char], c: char) -> Option<usize> {
    match glob.first()? {
        '*' => None,
        '?' => Some(1),
        '[' => {
            let negated = glob.get(1) == Some(&'!');
            let begin = if negated { 2 } else { 1 };
            // A bracket right at the beginning stands for itself.
            let Some(end) = glob.iter().skip(begin + 1).position(|c| *c == ']').map(|end| begin + 1 + end) else {
                return (c == '[').then_some(1);
            };
            let set = &glob[begin..end];
            let mut inside = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    inside |= set[i] <= c && c <= set[i + 2];
                    i += 3;
                } else {
                    inside |= set[i] == c;
                    i += 1;
                }
            }
            (inside != negated).then_some(end + 1)
        }
        other => (*other == c).then_some(1),
    }
}

#[cfg(test)]
mod tests;
