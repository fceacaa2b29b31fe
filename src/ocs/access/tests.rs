use super::*;
use proptest::prelude::*;

fn access(policy: &str) -> AgentAccess {
    AgentAccess::new(Some(policy), "archiver-1", "PysmurfArchiverAgent").unwrap()
}

fn rule(hash: &str, value: &str, level: u8, scope: Value) -> Value {
    json!({"hashed_pass": {"hash": hash, "value": value}, "cred_level": level, "scope_spec": scope,
        "lockout_id": null, "lockout_owner": null, "lockout_levels": []})
}

fn everywhere() -> Value {
    json!({"default": true, "agent_class": null, "instance_id": null})
}

#[test]
fn without_a_policy_everybody_is_basic() {
    for policy in [None, Some(""), Some("none")] {
        let access = AgentAccess::new(policy, "a", "A").unwrap();
        assert_eq!(access.check_start("whatever", 1), Ok(1));
        assert!(access.check_start("whatever", 2).is_err());
        assert_eq!(access.own_level(), 1);
    }
}

#[test]
fn an_override_knows_two_passwords() {
    let access = access("override:two,three");
    assert_eq!(access.check_start("", 1), Ok(1));
    assert_eq!(access.check_start("two", 1), Ok(2));
    assert_eq!(access.check_start("three", 3), Ok(3));
    let words = "The action requires credential level 2-ADVANCED but the client has only level 1-BASIC";
    assert_eq!(access.check_start("wrong", 2), Err(words.to_owned()));
    assert_eq!(access.own_level(), 4);
}

#[test]
fn policies_that_are_none_are_refused_without_showing_them() {
    for policy in ["override", "override:onlyone", "nonesuch:secret", "secret"] {
        let error = AgentAccess::new(Some(policy), "a", "A").err().unwrap().to_string();
        assert!(!error.contains("secret") && !error.contains("onlyone"), "{error}");
    }
}

#[test]
fn a_director_rules_once_it_has_spoken() {
    let mut access = access("director:");
    assert_eq!(access.director(), Some("access-director"));
    let words = "The action requires credential level 1-BASIC but the client has only level 0-BLOCKED";
    assert_eq!(access.check_start("", 1), Err(words.to_owned()));
    let rules = json!([rule("none", "", 1, everywhere()), rule("md5", "0cc175b9c0f1b6a8", 2, everywhere())]);
    let message = json!({"reset": true, "ac_version": 1, "step": 2, "rules": rules});
    assert!(access.update(&message).unwrap());
    assert_eq!(access.check_start("", 1), Ok(1));
    assert_eq!(access.check_start("a", 2), Ok(2));
    assert!(access.check_start("b", 2).is_err());
    assert_eq!(access.encoded()["update_count"], 1);
    assert_eq!(access.encoded()["step"], 2);
}

#[test]
fn messages_for_others_and_of_other_versions_change_nothing() {
    let mut access = access("director:acc");
    let rules = json!([rule("none", "", 3, everywhere())]);
    assert!(access.update(&json!({"reset": true, "ac_version": 2, "step": 1, "rules": rules})).is_err());
    assert!(!access.update(&json!({"target": "other", "ac_version": 1, "step": 1, "rules": rules})).unwrap());
    assert!(access.update(&json!({"reset": true, "ac_version": 1, "step": 1, "rules": [{}]})).is_err());
    assert!(access.update(&json!([1, 2])).is_err());
    assert_eq!(access.encoded()["update_count"], 0);
    assert!(access.check_start("", 1).is_err());
    assert!(access.update(&json!({"target": "archiver-1", "ac_version": 1, "step": 7, "rules": rules})).unwrap());
    assert_eq!(access.check_start("", 3), Ok(3));
}

#[test]
fn lockouts_lower_everybody_else() {
    let mut access = access("director:acc");
    let mut grant = rule("none", "mine", 3, everywhere());
    grant["lockout_id"] = "test-grant".into();
    grant["lockout_owner"] = "me".into();
    grant["lockout_levels"] = json!([1, 2]);
    let rules = json!([rule("none", "", 1, everywhere()), rule("none", "two", 2, everywhere()), grant]);
    access.update(&json!({"reset": true, "ac_version": 1, "step": 1, "rules": rules})).unwrap();
    assert_eq!(access.check_start("mine", 3), Ok(3));
    let words = "The action requires credential level 1-BASIC but the client has only level 0-BLOCKED";
    let lockouts = " Privileges diminished; lockouts active: ['test-grant[me]']";
    assert_eq!(access.check_start("two", 1), Err(format!("{words}{lockouts}")));
    assert_eq!(access.check("two", 1), Err(words.to_owned()));
}

#[test]
fn hashes_block_unless_known() {
    for (hash, value, password, fits) in [
        ("blocked", "", "", false),
        ("blocked", "x", "x", false),
        ("sha1", "x", "x", false),
        ("none", "x", "x", true),
        ("none", "x", "", false),
        ("md5", "", "anything", true),
        ("md5", "d41d8cd98f00b204", "", true),
    ] {
        assert_eq!(Password::new(hash, value).matches(password), fits, "{hash} {value} {password}");
    }
}

#[test]
fn scopes_are_lists_of_globs() {
    let scope = |class: Option<&str>, id: Option<&str>| RuleScope {
        all: false,
        agent_class: class.map(str::to_owned),
        instance_id: id.map(str::to_owned),
    };
    assert!(!scope(None, None).matches("A", "a"));
    assert!(scope(Some("*Agent"), None).matches("FakeAgent", "a"));
    assert!(!scope(Some("*Agent,!Fake*"), None).matches("FakeAgent", "a"));
    assert!(!scope(Some("*Agent"), Some("b")).matches("FakeAgent", "a"));
    for (list, word, fits) in [
        ("Director,Act*,*Producer*", "MyProducerAgent", true),
        ("compute*,login*,!*9,!*8", "login19", false),
        ("compute*,login*,!*9,!*8", "login17", true),
        ("!x", "y", true),
        ("", "y", true),
        ("a?c", "abc", true),
        ("a[b-d]c", "acc", true),
        ("a[!b-d]c", "acc", false),
        ("a[", "a[", true),
        ("[]]", "]", true),
        ("*a*b*c", "xxaxxbxxc", true),
        ("*a*b*c", "xxaxxcxxb", false),
    ] {
        assert_eq!(matches_list(list, word), fits, "{list} {word}");
    }
}

proptest! {
    #[test]
    fn any_pattern_is_judged(list in "[a-c*?!,\\[\\]-]{0,24}", word in "[a-c]{0,12}") {
        matches_list(&list, &word);
    }

    #[test]
    fn a_word_matches_itself_and_stars(word in "[a-z0-9-]{1,12}", cut in 0..12usize) {
        prop_assert!(matches_list(&word, &word));
        let cut = cut.min(word.len());
        let starred = format!("{}*{}", &word[..cut], &word[cut..]);
        prop_assert!(matches_list(&starred, &word));
    }
}
