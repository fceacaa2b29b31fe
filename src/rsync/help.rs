//! Help, manual page and completions, all out of the table of options.

use super::table::{self, Spelt};
use super::version;
use protocol::args::Flag;
use std::fmt::Write;

/// How the program is called.
const USAGE: &str = "\
Usage: rsync [OPTION]... SRC [SRC]... DEST
  or   rsync [OPTION]... SRC [SRC]... [USER@]HOST:DEST
  or   rsync [OPTION]... SRC [SRC]... [USER@]HOST::DEST
  or   rsync [OPTION]... SRC [SRC]... rsync://[USER@]HOST[:PORT]/DEST
  or   rsync [OPTION]... [USER@]HOST:SRC [DEST]
  or   rsync [OPTION]... [USER@]HOST::SRC [DEST]
  or   rsync [OPTION]... rsync://[USER@]HOST[:PORT]/SRC [DEST]
  or   rsync --daemon [--config=FILE] [--port=PORT]
Without -e, a HOST is reached by the SSH that is built in.
";

/// Options of stock rsync that the table knows and nothing serves; each is refused by name.
const LACKING: &str = "--crtimes";

/// `--help`.
pub(super) fn text() -> String {
    let mut text = version::text();
    text += "\nCopies files within a machine or between two, sending only what differs.\n\n";
    text += USAGE;
    text += "\nOptions\n";
    for option in table::listed() {
        let mut names = forms(&option).join(", ");
        if names.len() > 23 {
            names.push('\n');
            names.push_str(&" ".repeat(24));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{names:<24} {}", option.help);
    }
    text += "--no-OPTION              take OPTION back, such as --no-D\n";
    let _ = writeln!(text, "\nNot there yet, and refused by name with exit code 1: {LACKING}.");
    text
}

/// `--info=help` or `--debug=help`: the flags of which something is ever shown, and what `-v` sets.
pub(super) fn levels<F: Flag>() -> String {
    let mut text = String::from("NAME or NAME1 for level 1, NAME2 for level 2, and so on; NAME0 silences.\n\n");
    for flag in F::ROWS.iter().filter(|flag| !flag.help.is_empty()) {
        text += &format!("{:<10} {}\n", flag.name, flag.help);
    }
    text += &format!(
        "\nALL        every flag of --{} (ALL4: at that level)\nNONE       none of them (as ALL0)\nHELP       this text\n\nEach -v adds:\n",
        F::OPTION
    );
    for verbose in 0..=5u8 {
        let added = F::ROWS.iter().flat_map(|flag| {
            flag.verbose.iter().enumerate().filter(|(_, least)| **least == verbose).map(|(level, _)| match level {
                0 => flag.name.to_owned(),
                level => format!("{}{}", flag.name, level + 1),
            })
        });
        let added: Vec<_> = added.collect();
        if !added.is_empty() {
            text += &format!("{verbose}) {}\n", added.join(","));
        }
    }
    text
}

/// The option as it is typed, in each of its forms.
fn forms(option: &Spelt) -> Vec<String> {
    let mut forms = Vec::new();
    for (at, name) in option.names.iter().enumerate() {
        match (at, option.value) {
            (0, value) if !value.is_empty() => forms.push(format!("--{name}={value}")),
            _ => forms.push(format!("--{name}")),
        }
    }
    if option.letter != 0 {
        forms.push(format!("-{}", char::from(option.letter)));
    }
    forms
}

/// A text made of the table, by the name of its kind.
pub(super) fn generate(what: &str) -> Option<String> {
    Some(match what {
        "man" => man(),
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        _ => return None,
    })
}

fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

fn man() -> String {
    let mut text = format!(
        ".TH RSYNC 1 \"\" \"pysmurf-archiver {}\" \"User Commands\"\n.SH NAME\nrsync \\- copy files within a machine or \
         between two, sending only what differs\n.SH SYNOPSIS\n.nf\n",
        env!("CARGO_PKG_VERSION")
    );
    for line in USAGE.lines().filter(|line| line.contains(" rsync ")) {
        let line = line.trim_start_matches("Usage:").trim_start().trim_start_matches("or").trim_start();
        let _ = writeln!(text, "{}", roff(line));
    }
    text += ".fi\n.SH DESCRIPTION\nThe rsync command of pysmurf\\-archiver takes the command line of stock rsync and speaks its \
             protocol, versions 27 to 32.\nWithout \\fB\\-e\\fR it reaches other machines by the SSH that is built in, with the host \
             keys, keys, agent and configuration of ssh(1).\nOptions that it does not serve are refused by name: ";
    let _ = writeln!(text, "{}.\n.SH OPTIONS", roff(LACKING));
    for option in table::listed() {
        let forms: Vec<_> = forms(&option).iter().map(|form| format!("\\fB{}\\fR", roff(form))).collect();
        let _ = writeln!(text, ".TP\n{}\n{}", forms.join(", "), roff(option.help));
    }
    text += ".TP\n\\fB\\-\\-no\\-OPTION\\fR\nTakes OPTION back. These are known:\n";
    let negations: Vec<_> = table::unlisted().flat_map(|option| forms(&option)).map(|form| roff(&form)).collect();
    let _ = writeln!(text, "{}", negations.join(", "));
    text += ".SH ENVIRONMENT\n";
    for (name, help) in [
        ("RSYNC_RSH", "the same as -e"),
        ("RSYNC_PROTECT_ARGS", "1: as if -s were given"),
        ("RSYNC_OLD_ARGS", "1: as if --old-args were given"),
        ("RSYNC_PARTIAL_DIR", "where --partial keeps its files"),
        ("RSYNC_ICONV", "the same as --iconv"),
        ("RSYNC_MAX_ALLOC", "the same as --max-alloc"),
        ("RSYNC_PARALLEL", "the same as --parallel"),
        ("RSYNC_PASSWORD", "the password for a daemon"),
        ("RSYNC_PROXY", "host:port of a web proxy on the way to a daemon"),
        ("CVSIGNORE", "further patterns for -C"),
    ] {
        let _ = writeln!(text, ".TP\n\\fB{name}\\fR\n{}", roff(help));
    }
    text += ".SH EXIT STATUS\n0 success; 1 syntax or usage; 2 protocol incompatibility; 3 files that cannot be selected; 4 not \
             supported; 5 start of the protocol; 10 socket; 11 file; 12 data stream; 14 IPC; 20 signal; 23 partial; 24 vanished \
             files; 25 deletion limit; 30 timeout; 127 no rsync at the other end\n.SH SEE ALSO\nssh(1), ssh_config(5)\n";
    text
}

/// Long and short forms without values, of all options.
fn words() -> Vec<String> {
    let mut words = Vec::new();
    for option in table::all() {
        for name in &option.names {
            let equals = if option.value.is_empty() { "" } else { "=" };
            words.push(format!("--{name}{equals}"));
        }
        if option.letter != 0 {
            words.push(format!("-{}", char::from(option.letter)));
        }
    }
    words
}

fn bash() -> String {
    format!(
        "_pysmurf_rsync() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}}\n    if [[ $word == -* ]]; then\n        COMPREPLY=($(compgen \
         -W '{}' -- \"$word\"))\n        [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace\n    else\n        COMPREPLY=($(compgen \
         -f -- \"$word\"))\n    fi\n}}\ncomplete -o filenames -F _pysmurf_rsync rsync\n",
        words().join(" ")
    )
}

fn zsh() -> String {
    let mut text = String::from("#compdef rsync\n_arguments -s \\\n");
    let escape = |help: &str| help.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    for option in table::all() {
        let help = if option.help.is_empty() { "take it back" } else { option.help };
        let value = if option.value.is_empty() { String::new() } else { format!(":{}:_files", escape(option.value)) };
        for name in &option.names {
            let equals = if option.value.is_empty() { "" } else { "=" };
            let _ = writeln!(text, "  '*--{name}{equals}[{}]{value}' \\", escape(help));
        }
        if option.letter != 0 {
            let plus = if option.value.is_empty() { "" } else { "+" };
            let _ = writeln!(text, "  '*-{}{plus}[{}]{value}' \\", char::from(option.letter), escape(help));
        }
    }
    text + "  '*:file:_files'\n"
}

fn fish() -> String {
    let mut text = String::new();
    for option in table::all() {
        let letter_alone = String::new();
        let names = if option.names.is_empty() { std::slice::from_ref(&letter_alone) } else { &option.names };
        for (at, name) in names.iter().enumerate() {
            let mut line = String::from("complete -c rsync");
            if !name.is_empty() {
                let _ = write!(line, " -l {name}");
            }
            if at == 0 && option.letter != 0 {
                let _ = write!(line, " -s {}", char::from(option.letter));
            }
            if !option.value.is_empty() {
                line += " -r";
            }
            if !option.help.is_empty() {
                let _ = write!(line, " -d '{}'", option.help.replace('\'', "\\'"));
            }
            text += &line;
            text.push('\n');
        }
    }
    text
}
