use super::*;
use std::fs;
use tempfile::TempDir;

fn read(files: &[(&str, &str)], overrides: &[&str]) -> (TempDir, Result<Config, String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut environment = DaemonVariables::default();
    environment.set("PORT", "1873");
    environment.set("NAME", "somebody");
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let config = Config::read(&folder.path().join(files[0].0), &overrides, &environment);
    let text = |error: ConfigError| error.to_string().replace(folder.path().to_str().unwrap(), "DIR");
    let config = config.map_err(text);
    (folder, config)
}

fn good(text: &str) -> Config {
    read(&[("c", text)], &[]).1.unwrap()
}

#[test]
fn modules_inherit_what_stands_above_them() {
    let config = good(
        "# a comment \\\nuse chroot = no\nport = %PORT%\n\n[ one   two ]\n path = /srv/one two\n ReadOnly = FALSE\n\
         comment = a # b = c  \n[global]\nlist = no\n[b]\npath=/b\n  exclude = x \\\n   y \\\n z\n[one two]\nTimeOut = 7\n",
    );
    assert_eq!((config.globals.port, config.modules.len()), (1873, 2));
    let one = config.module("one two").unwrap().settings.clone();
    assert_eq!(one.path.as_deref(), Some("/srv/one two"));
    assert_eq!(one.comment.as_deref(), Some("a # b = c"));
    assert_eq!((one.use_chroot, one.read_only, one.list, one.timeout), (Some(false), false, true, 7));
    let b = &config.module("b").unwrap().settings;
    assert_eq!((b.list, b.read_only, b.exclude.as_deref()), (false, true, Some("x    y  z")));
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (text, expected) in [
        ("[a\n", "DIR/c:1: \"[a\" is not understood; expected [module]"),
        ("[a/b]\n", "DIR/c:1: \"[a/b]\" is not understood; expected a module's name without slashes and brackets"),
        ("[a]\n\n path\n", "DIR/c:3: \"path\" is not understood; expected [module], name = value or &include FILE"),
        ("pathh = x\n", "DIR/c:1: \"pathh = x\" is not understood; expected the name of a parameter of rsyncd.conf(5)"),
        (
            "[a]\nread only = maybe",
            "DIR/c:2: \"read only = maybe\" is not understood; expected yes, no, true, false, 1 or 0",
        ),
        ("port = 70000", "DIR/c:1: \"port = 70000\" is not understood; expected a number from 0 to 65535"),
        ("\n&include", "DIR/c:2: \"&include\" is not understood; expected a file or folder behind it"),
        ("&inculde x", "DIR/c:1: \"&inculde x\" is not understood; expected &include or &merge"),
        (
            "[a]\nport = 1",
            "DIR/c:2: \"port = 1\" is not understood; expected this parameter above all modules, for it holds for the \
             whole daemon",
        ),
        ("&include c", "Cannot read DIR/c: Too many files include each other"),
    ] {
        assert_eq!(read(&[("c", text)], &[]).1.unwrap_err(), expected);
    }
    assert_eq!(good("proxy protocol = no\nname converter =\n"), Config::default());
}

#[test]
fn includes_keep_to_themselves_and_merges_do_not() {
    let files = [
        ("c", "&merge d\n&include d\n[last]\npath=/l\n"),
        ("d/1.inc", "timeout = 5\n"),
        ("d/2.conf", "timeout = 6\n[two]\npath=/2\n"),
        ("d/1.conf", "[one]\npath=/1\n"),
        ("d/not", "nonsense"),
    ];
    let config = read(&files, &["timeout=9", "pidfile = /x"]).1.unwrap();
    let found: Vec<_> = config.modules.iter().map(|module| (&*module.name, module.settings.timeout)).collect();
    assert_eq!(found, [("one", 9), ("two", 9), ("last", 9)]);
    assert_eq!(config.globals.pid_file.as_deref(), Some("/x"));
    assert!(read(&files, &["nonsense=9"]).1.unwrap_err().starts_with("--dparam:1:"));
}

#[test]
fn references_are_replaced_late_and_unknown_ones_never() {
    let mut environment = DaemonVariables::default();
    environment.set("NAME", "somebody");
    for (text, expected) in [
        ("/home/%NAME%/x", "/home/somebody/x"),
        ("%NONE%", "%NONE%"),
        ("100%", "100%"),
        ("%%NAME%%", "%NAME%"),
        ("%NA ME%NAME%", "%NA MEsomebody"),
        ("%", "%"),
        ("%%%", "%%"),
    ] {
        assert_eq!(environment.expand(text), expected, "{text}");
    }
    assert_eq!(environment.replace("a%NAME%", |_, _| None), None);
}
