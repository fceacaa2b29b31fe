//! What comes from a router, and the file of a site.

mod access;
#[path = "../../src/ocs/wamp/message.rs"]
mod message;
mod site;

use message::WampMessage;
use std::ffi::OsString;

/// A message of the router; one of the access director among them.
pub(crate) fn messages(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(Some(message)) = WampMessage::decode(text) {
        let _ = message.answers(1);
        // What was understood is understood again.
        assert!(!matches!(WampMessage::decode(&message.encode()), Err(_)), "{}", message.encode());
        if let WampMessage::Event { args, .. } = &message {
            let mut rules = access::AgentAccess::new(Some("director:rules"), "instance", "SupRsync").unwrap();
            for rule in args {
                let _ = rules.update(rule);
                let _ = (rules.check("password", 2), rules.check_start("", 3), rules.encoded());
            }
        }
    }
}

/// The file of a site, with an agent that is named in it or not.
pub(crate) fn sites(data: &[u8]) {
    let Some((&how, text)) = data.split_first() else { return };
    crate::disk::written("default.yaml", text);
    let folder = crate::disk::FOLDER.display().to_string();
    let variable = |name: &str| match name {
        "OCS_CONFIG_DIR" => Some(folder.clone()),
        "INSTANCE_ID" if how & 1 == 0 => Some("smurf-sync".to_owned()),
        _ => None,
    };
    let wanted = if how & 2 == 0 { site::WantedAgent::Archiver } else { site::WantedAgent::Monitor };
    let _ = site::resolve(wanted, &[] as &[OsString], &variable, "localhost");
}
