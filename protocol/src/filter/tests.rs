use super::*;
use proptest::prelude::*;

/// Every way tried in turn: slow, and plainly right.
fn slowly(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', b'*', rest @ ..], _) => {
            let rest = &rest[rest.iter().take_while(|&&byte| byte == b'*').count()..];
            (0..=name.len()).any(|skip| slowly(rest, &name[skip..]))
        }
        ([b'*', rest @ ..], _) => {
            let most = name.iter().position(|&byte| byte == b'/').unwrap_or(name.len());
            (0..=most).any(|skip| slowly(rest, &name[skip..]))
        }
        ([b'?', rest @ ..], [byte, later @ ..]) => *byte != b'/' && slowly(rest, later),
        ([b'\\', wanted, rest @ ..], [byte, later @ ..]) | ([wanted, rest @ ..], [byte, later @ ..]) => {
            wanted == byte && slowly(rest, later)
        }
        (_, []) => false,
    }
}

/// The same with what stands before the pattern proper: anchors and components.
fn slowly_anywhere(pattern: &[u8], path: &[u8]) -> bool {
    let inner = pattern.strip_prefix(b"/").unwrap_or(pattern);
    let whole = pattern.contains(&b'/') || pattern.windows(2).any(|pair| pair == b"**");
    let starts: Vec<usize> = (0..path.len()).filter(|&at| at == 0 || path[at - 1] == b'/').collect();
    let deep = inner.starts_with(b"**") && slowly(inner, &[b"/", path].concat());
    match (pattern.starts_with(b"/"), whole) {
        (true, _) => slowly(inner, path),
        (_, true) => deep || starts.iter().any(|&at| slowly(inner, &path[at..])),
        (_, false) => starts.last().is_some_and(|&at| slowly(inner, &path[at..])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
    #[test]
    fn the_matcher_agrees_with_a_slow_one(
        pattern in "/?[ab/*?]{0,7}[ab*?]",
        path in "[ab]{1,2}(/[ab]{1,3}){0,3}",
    ) {
        prop_assume!(!pattern.ends_with("***"));
        let (pattern, path) = (pattern.as_bytes(), path.as_bytes());
        prop_assert_eq!(Pattern::new(pattern).matches(path, false), slowly_anywhere(pattern, path));
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..60), bare in any::<bool>()) {
        let mode = if bare { Mode::old_style(Action::Exclude) } else { Mode::default() };
        let _ = parse_file(&text, &mode, Some("file"));
        if let Ok(given) = parse_rule(&text, &mode) {
            for given in given {
                if let Given::Rule(Rule::Match(rule)) = given {
                    rule.pattern.matches(b"a/b", true);
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read_the_same(
        letter in "[-+]", modifiers in "/?!?x?(s|r|sr)?p?", pattern in "[^\0]{1,20}",
    ) {
        let text = format!("{letter}{modifiers} {pattern}");
        let given = parse_rule(text.as_bytes(), &Mode::default()).unwrap();
        let [Given::Rule(rule)] = &given[..] else { panic!("{given:?}") };
        prop_assert_eq!(String::from_utf8(rule.text()).unwrap(), text);
    }

    #[test]
    fn merge_rules_keep_their_letters(modifiers in "/?n?w?[+-]?x?(s|r|sr)?p?", name in "[a-z./]{1,9}") {
        let text = format!(":{modifiers} {name}");
        let given = parse_rule(text.as_bytes(), &Mode::default()).unwrap();
        let [Given::Rule(rule)] = &given[..] else { panic!("{given:?}") };
        prop_assert_eq!(String::from_utf8(rule.text()).unwrap(), text);
    }
}

/// What stock rsync 3.5.0 writes as a client of 28 and 29.
#[test]
fn rules_before_30_are_stock_rsyncs() {
    let rule = |text: &str| match parse_rule(text.as_bytes(), &Mode::default()).unwrap().remove(0) {
        Given::Rule(rule) => rule,
        other => panic!("{other:?}"),
    };
    let sent = |text: &str, server, version| {
        let bytes = encode(&[rule(text)], server, version).ok()?;
        Some(String::from_utf8(bytes[4..bytes.len() - 4].to_vec()).unwrap())
    };
    let (push, pull) = (RuleSide::Receiver, RuleSide::Sender);
    for (text, server, at_29, at_28) in [
        ("- x", push, Some("- x"), Some("x")),
        ("+ x", push, Some("+ x"), Some("+ x")),
        ("- + x", push, Some("- + x"), Some("- + x")),
        ("-r x", push, Some("-r x"), Some("x")),
        ("-s x", pull, Some("-s x"), Some("x")),
        ("+s x", pull, Some("+s x"), Some("+ x")),
        ("-p x", push, None, None),
        ("-p x", pull, Some("- x"), Some("x")),
        ("-/ /x", push, Some("-/ /x"), None),
        ("-! y", pull, Some("-! y"), None),
        ("-x user.*", push, Some("-x user.*"), None),
        (": .f", push, Some(": .f"), None),
    ] {
        let told = (sent(text, server, 29), sent(text, server, 28));
        assert_eq!(told, (at_29.map(String::from), at_28.map(String::from)), "{text} {server:?}");
    }
    assert!(matches!(encode(&[rule("-p x")], push, 28), Err(PeerError::RulesTooModern)));
}

#[test]
fn patterns_match_as_with_stock() {
    // Tried with stock 3.5.0.
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("**/f", &["f", "a/f", "a/b/c/f"], &["ff"]),
        ("/**/f", &["a/f", "a/b/f"], &["f"]),
        ("/**f", &["f", "a/f"], &[]),
        ("**foo", &["foo/", "x/foo/"], &["foo/bar/"]),
        ("foo/**", &["foo/f", "x/foo/bar/f"], &["foo/", "xfoo/f"]),
        ("foo***", &["foo/", "foobar", "foo/f", "x/foobar"], &["xfoo"]),
        ("foo/***", &["foo/", "x/foo/", "foo/f"], &["foo", "foobar"]),
        ("/foo/***", &["foo/", "foo/bar/f"], &["x/foo/"]),
        ("bar/f", &["foo/bar/f", "bar/f"], &["xbar/f"]),
        ("/bar/f", &["bar/f"], &["foo/bar/f"]),
        ("foo/*/f", &["foo/bar/f", "x/foo/bar/f"], &["foo/f", "foo/a/b/f"]),
        ("oo/**/f", &[], &["foo/bar/f"]),
        ("back\\slash", &["back\\slash"], &["backslash"]),
        ("back\\sla*", &["backslash"], &["back\\slash"]),
        ("a[]]b", &["a]b"], &["a[b"]),
        ("[!a-e]", &["f", "-"], &["a"]),
        ("[[:alpha:]]", &["f"], &["-", "1"]),
        ("[a", &[], &["[a", "a"]),
        ("a[/]f", &[], &["a/f"]),
        ("foo/", &["foo/", "x/foo/"], &["foo"]),
        ("foo//", &[], &["foo/"]),
        ("a/**/b/f", &[], &["a/b/f"]),
        ("b**/f", &["a/b/c/f", "foo/bar/f", "a/b/f"], &["a/f"]),
        ("f\\", &["f\\"], &["f"]),
        ("/", &[], &["a", "a/"]),
        ("f*\\", &[], &["f", "f\\"]),
    ];
    for (pattern, matching, other) in cases {
        for (names, expected) in [(matching, true), (other, false)] {
            for name in *names {
                let bare = name.strip_suffix('/');
                let found = Pattern::new(pattern.as_bytes()).matches(bare.unwrap_or(name).as_bytes(), bare.is_some());
                assert_eq!(found, expected, "{pattern} {name}");
            }
        }
    }
}

fn rules(texts: &[&str], mode: &Mode) -> Vec<Rule> {
    let given = texts.iter().flat_map(|text| parse_rule(text.as_bytes(), mode).unwrap());
    given.filter_map(|given| if let Given::Rule(rule) = given { Some(rule) } else { None }).collect()
}

fn wire(texts: &[&str], side: RuleSide, delete_excluded: bool) -> String {
    let rules = rules(texts, &Mode { delete_excluded, ..Mode::default() });
    let bytes = encode(&rules, side, 32).unwrap();
    let mut bytes = &bytes[..];
    let mut parts = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let (text, rest) = rest.split_at(u32::from_le_bytes(*head) as usize);
        parts.push(String::from_utf8(text.to_vec()).unwrap());
        bytes = rest;
    }
    assert_eq!(parts.pop().unwrap(), "");
    parts.join(" | ")
}

/// Taken from stock 3.5.0, for a server that sends, one that receives, and the same with `--delete-excluded`.
#[test]
fn the_wire_is_as_stock_writes_it() {
    for (text, to_sender, to_receiver, excluded_to_sender, excluded_to_receiver) in [
        ("exclude,! a", "-! a", "-! a", "-!s a", ""),
        ("-_a", "- a", "- a", "-s a", ""),
        ("-/ /a", "-/ /a", "-/ /a", "-/s /a", ""),
        ("P a", "", "-r a", "", "-r a"),
        ("R a", "", "+r a", "", "+r a"),
        ("H a", "-s a", "", "-s a", ""),
        ("S a", "+s a", "", "+s a", ""),
        ("-rs a", "-sr a", "-sr a", "-sr a", "-sr a"),
        ("hide,p b/", "-sp b/", "", "-sp b/", ""),
        ("-x user.*", "-x user.*", "-x user.*", "-xs user.*", ""),
        (": .r", ": .r", ": .r", ": .r", ": .r"),
        (":n- .r", ":n- .r", ":n- .r", ":n- .r", ""),
        (":C", ":C .cvsignore", ":C .cvsignore", ":C .cvsignore", ""),
        (":s .r", ":s .r", "", ":s .r", ""),
        (":sr- .r", ":-sr .r", ":-sr .r", ":-sr .r", ":-sr .r"),
        ("-C", "-C ", "-C ", "-Cs ", ""),
        ("dir-merge /.rf", ": /.rf", ": /.rf", ": /.rf", ": /.rf"),
    ] {
        assert_eq!(wire(&[text], RuleSide::Sender, false), to_sender, "{text}");
        assert_eq!(wire(&[text], RuleSide::Receiver, false), to_receiver, "{text}");
        assert_eq!(wire(&[text], RuleSide::Sender, true), excluded_to_sender, "{text}");
        assert_eq!(wire(&[text], RuleSide::Receiver, true), excluded_to_receiver, "{text}");
    }
    assert_eq!(wire(&[":e .r"], RuleSide::Sender, false), "- .r | : .r");
}

#[test]
fn nonsense_is_refused() {
    for text in ["a", "-a x", "-", "- ", "hide,s a", "merge", "! x", "excluded a", "-e x", ":! x"] {
        assert!(parse_rule(text.as_bytes(), &Mode::default()).is_err(), "{text}");
    }
    assert!(parse_rule(&[b'a'; RULE_MOST], &Mode::old_style(Action::Exclude)).is_err());
}

#[test]
fn files_have_comments_and_old_prefixes() {
    let texts = |text: &str, mode: &Mode| -> Vec<String> {
        let given = parse_file(text.as_bytes(), mode, None).unwrap();
        let shown = |given| match given {
            Given::Rule(rule) => String::from_utf8(rule.text()).unwrap(),
            Given::Clear => "!".into(),
            Given::Merge(file, _) => format!(". {}", String::from_utf8(file.name).unwrap()),
        };
        given.into_iter().map(shown).collect()
    };
    let old = Mode::old_style(Action::Exclude);
    assert_eq!(texts("# c\n; d\n\n- a\r\n+ b\n!\nfoo \n-x\n", &old), ["- a", "+ b", "!", "- foo ", "- -x"]);
    assert_eq!(texts("a\nb\0#c\0+ d", &Mode { from0: true, ..old }), ["- a\nb", "+ d"]);
    let bare = Mode { bare: Some(Action::Include), ..Mode::default() };
    assert_eq!(texts("a #b\n#c\n- d\n", &bare), ["+ a #b", "+ - d"]);
    let words = Mode { word_split: true, ..Mode::default() };
    assert_eq!(texts("- a + b\n-_c !", &words), ["- a", "+ b", "- c", "!"]);
    let cvs = Mode { cvs: true, word_split: true, bare: Some(Action::Exclude), ..Mode::default() };
    assert_eq!(texts("a #b\n!\n- d\n", &cvs), ["- a", "- #b", "!", "- -", "- d"]);
}

/// Enters a directory whose only file has this text.
fn entered(set: &RuleSet, above: &Scope, dir: &str, text: &str) -> Scope {
    set.enter(above, dir.as_bytes(), &mut |_| Ok(Some(text.into()))).unwrap()
}

#[test]
fn directories_bring_rules_and_hand_them_down() {
    let set = RuleSet::new(RuleSide::Sender, &rules(&["+ keep", ": .r", "- *.o"], &Mode::default()));
    let top = entered(&set, &set.top(b"/root"), ".", "- /one\n- x\n- keep\n+ good.o\n");
    let sub = entered(&set, &top, "sub", "+ x\n- /one\n");
    let excludes = |scope: &Scope, name: &str| set.excludes(scope, name.as_bytes(), false, ParentDir::Kept);
    assert!(excludes(&top, "one") && excludes(&top, "x") && excludes(&top, "a.o"));
    assert!(!excludes(&top, "keep") && !excludes(&top, "good.o"));
    // Anchored where its file is; newer rules first; the rest inherited.
    assert!(excludes(&sub, "sub/one") && !excludes(&sub, "sub/x") && !excludes(&sub, "sub/good.o"));
    assert!(!excludes(&sub, "sub/deeper/one"));
    let cleared = entered(&set, &top, "other", "!\n");
    assert!(!excludes(&cleared, "other/x") && excludes(&cleared, "other/good.o"));
    let alone = RuleSet::new(RuleSide::Sender, &rules(&[":n- .r"], &Mode::default()));
    let top = entered(&alone, &alone.top(b"/root"), ".", "x\n");
    let sub = alone.enter(&top, b"sub", &mut |_| Ok(None)).unwrap();
    assert!(
        alone.excludes(&top, b"x", false, ParentDir::Kept) && !alone.excludes(&sub, b"sub/x", false, ParentDir::Kept)
    );
}

#[test]
fn files_that_name_each_other_come_to_an_end() {
    let set = RuleSet::new(RuleSide::Sender, &rules(&[": .r"], &Mode::default()));
    let itself = entered(&set, &set.top(b"/"), ".", ": .r\n- x\n");
    assert!(set.excludes(&itself, b"x", false, ParentDir::Kept));
    let endless = set.enter(&set.top(b"/"), b".", &mut |_| Ok(Some(b". .r\n".to_vec())));
    assert!(matches!(endless, Err(ScopeError::TooMany(_))));
    let mut count = 0;
    let many = set.enter(&set.top(b"/"), b".", &mut |_| {
        count += 1;
        Ok(Some(format!(": .r{count}\n").into_bytes()))
    });
    assert!(matches!(many, Err(ScopeError::TooMany(_))));
}

#[test]
fn perishable_rules_go_with_their_directory() {
    let set = RuleSet::new(RuleSide::Receiver, &rules(&["-p a", "- b", "-s c", "-! /*"], &Mode::default()));
    let top = set.top(b"/");
    assert!(set.excludes(&top, b"a", false, ParentDir::Kept) && !set.excludes(&top, b"a", false, ParentDir::Deleted));
    assert!(set.excludes(&top, b"b", false, ParentDir::Deleted) && !set.excludes(&top, b"c", false, ParentDir::Kept));
    assert!(set.excludes(&top, b"d/e", false, ParentDir::Kept));
    let absolute = RuleSet::new(RuleSide::Sender, &rules(&["-/ /etc/x"], &Mode::default()));
    assert!(absolute.excludes(&absolute.top(b"/etc/"), b"x", false, ParentDir::Kept));
    assert!(!absolute.excludes(&absolute.top(b"/var"), b"etc/x", false, ParentDir::Kept));
}

/// Three files, each of which names all three: gone through as often as they name each other they would have no end.
#[test]
fn files_that_name_each_other_are_each_asked_once() {
    let set = RuleSet::new(RuleSide::Sender, &rules(&[": .a", "-x user.*"], &Mode::default()));
    let of = |name: &[u8]| {
        let own = match name {
            b".a" => "- a\n",
            b".b" => "- b\n-x secret.*\n",
            _ => "+ a\n- c\n",
        };
        format!(": .a\n: .b\n: .c\n{own}").into_bytes()
    };
    let scope = set.enter(&set.top(b"/"), b".", &mut |name| Ok(Some(of(name)))).unwrap();
    let excludes = |name: &str| set.excludes(&scope, name.as_bytes(), false, ParentDir::Kept);
    // A file's rules count where it is named first.
    assert!(!excludes("a") && excludes("b") && excludes("c") && !excludes("d"));
    let attributes = set.attributes_in(&scope);
    assert!(attributes.exclude(b"secret.x") && attributes.exclude(b"user.x") && !attributes.exclude(b"trusted.x"));
}
