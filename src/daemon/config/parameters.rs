//! The parameters by name, and what each may be.

use super::expand::DaemonVariables;

macro_rules! settings {
    (texts { $($(#[$text_doc:meta])* $text:ident: $text_name:literal),* $(,)? }
     flags { $($(#[$flag_doc:meta])* $flag:ident: $flag_name:literal = $flag_default:literal),* $(,)? }
     choices { $($(#[$choice_doc:meta])* $choice:ident: $choice_name:literal),* $(,)? }
     numbers { $($(#[$number_doc:meta])* $number:ident: $number_name:literal = $default:literal, $least:literal .. $most:literal),* $(,)? }) => {
        /// The parameters of the daemon or of a module. Texts still hold their `%VAR%`s.
        #[derive(Debug, Clone, PartialEq)]
        pub(in crate::daemon) struct Parameters {
            $($(#[$text_doc])* pub(in crate::daemon) $text: Option<String>,)*
            $($(#[$flag_doc])* pub(in crate::daemon) $flag: bool,)*
            $($(#[$choice_doc])* pub(in crate::daemon) $choice: Option<bool>,)*
            $($(#[$number_doc])* pub(in crate::daemon) $number: i64,)*
        }

        impl Default for Parameters {
            fn default() -> Self {
                Self { $($text: None,)* $($flag: $flag_default,)* $($choice: None,)* $($number: $default,)* }
            }
        }

        impl Parameters {
            /// Sets a parameter from its text; an error says what was expected.
            pub(in crate::daemon) fn set(
                &mut self, name: &str, value: &str, environment: &DaemonVariables,
            ) -> Result<(), String> {
                let squeezed = squeeze(name);
                let typed = || environment.expand(value);
                match squeezed.as_str() {
                    $(name if name == squeeze($text_name) => {
                        // An empty format is one, and says nothing.
                        let kept = |text: &String| !text.is_empty() || squeezed == "logformat";
                        self.$text = Some(value.to_owned()).filter(kept);
                    })*
                    $(name if name == squeeze($flag_name) => self.$flag = boolean(&typed())?,)*
                    $(name if name == squeeze($choice_name) => {
                        self.$choice = if typed().eq_ignore_ascii_case("unset") { None } else { Some(boolean(&typed())?) };
                    })*
                    $(name if name == squeeze($number_name) => self.$number = number(&typed(), $least, $most)?,)*
                    _ => return Err("the name of a parameter of rsyncd.conf(5)".into()),
                }
                Ok(())
            }
        }
    };
}

settings! {
    texts {
        motd_file: "motd file",
        proxy_protocol_hosts: "proxy protocol hosts",
        pid_file: "pid file",
        address: "address",
        socket_options: "socket options",
        daemon_chroot: "daemon chroot",
        daemon_uid: "daemon uid",
        daemon_gid: "daemon gid",
        comment: "comment",
        path: "path",
        uid: "uid",
        gid: "gid",
        filter: "filter",
        exclude: "exclude",
        include: "include",
        exclude_from: "exclude from",
        include_from: "include from",
        hosts_allow: "hosts allow",
        hosts_deny: "hosts deny",
        auth_users: "auth users",
        secrets_file: "secrets file",
        auth_digest: "auth digest",
        lock_file: "lock file",
        log_file: "log file",
        log_format: "log format",
        syslog_facility: "syslog facility",
        syslog_tag: "syslog tag",
        refuse_options: "refuse options",
        incoming_chmod: "incoming chmod",
        outgoing_chmod: "outgoing chmod",
        dont_compress: "dont compress",
        charset: "charset",
        temp_dir: "temp dir",
        early_exec: "early exec",
        pre_xfer_exec: "pre-xfer exec",
        post_xfer_exec: "post-xfer exec",
        name_converter: "name converter",
    }
    flags {
        read_only: "read only" = true,
        write_only: "write only" = false,
        list: "list" = true,
        strict_modes: "strict modes" = true,
        reverse_lookup: "reverse lookup" = true,
        forward_lookup: "forward lookup" = true,
        transfer_logging: "transfer logging" = false,
        proxy_protocol: "proxy protocol" = false,
        fake_super: "fake super" = false,
        insecure_links: "insecure links" = false,
        ignore_errors: "ignore errors" = false,
        ignore_nonreadable: "ignore nonreadable" = false,
    }
    choices {
        use_chroot: "use chroot",
        numeric_ids: "numeric ids",
        munge_symlinks: "munge symlinks",
        open_noatime: "open noatime",
    }
    numbers {
        port: "port" = 0, 0 .. 65535,
        listen_backlog: "listen backlog" = 5, 1 .. 65535,
        max_connections: "max connections" = 0, -1 .. 100_000,
        max_verbosity: "max verbosity" = 1, 0 .. 100,
        timeout: "timeout" = 0, 0 .. 86_400,
    }
}

/// Parameters of the daemon as a whole.
const GLOBAL: [&str; 11] = [
    "motdfile",
    "pidfile",
    "port",
    "address",
    "socketoptions",
    "listenbacklog",
    "proxyprotocol",
    "proxyprotocolhosts",
    "daemonchroot",
    "daemonuid",
    "daemongid",
];

pub(super) fn is_global(name: &str) -> bool {
    GLOBAL.contains(&squeeze(name).as_str())
}

/// A name as it is compared: without spaces, in small letters.
fn squeeze(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_whitespace()).map(|letter| letter.to_ascii_lowercase()).collect()
}

fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" => Ok(true),
        "no" | "false" | "0" => Ok(false),
        _ => Err("yes, no, true, false, 1 or 0".into()),
    }
}

fn number(value: &str, least: i64, most: i64) -> Result<i64, String> {
    let found = value.parse().ok().filter(|number| (least..=most).contains(number));
    found.ok_or_else(|| format!("a number from {least} to {most}"))
}
