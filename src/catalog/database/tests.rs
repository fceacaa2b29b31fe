use std::io::Write;

use proptest::test_runner::TestRunner;

use super::*;

fn choose(option: Option<&str>, set: &[(&str, &str)]) -> Result<Option<Database>, CatalogError> {
    Database::choose(option, &|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
}

fn server(option: Option<&str>, set: &[(&str, &str)]) -> DatabaseServer {
    match choose(option, set) {
        Ok(Some(Database::Mysql(server))) => server,
        other => panic!("{other:?}"),
    }
}

fn complaint(option: Option<&str>, set: &[(&str, &str)]) -> String {
    choose(option, set).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_nothing_chosen() {
    assert_eq!(choose(None, &[]).unwrap(), None);
    assert_eq!(choose(None, &[("MYSQL_HOST", ""), ("HOME", "/root")]).unwrap(), None);
}

#[test]
fn variables_with_their_defaults() {
    let least = server(None, &[("MYSQL_USER", "u")]);
    assert_eq!(Database::Mysql(least.clone()).to_string(), "mysql://localhost:3306/files");
    assert_eq!(least.password, None);
    let all = [
        ("MYSQL_HOST", "db"),
        ("MYSQL_PORT", "3307"),
        ("MYSQL_USER", "u"),
        ("MYSQL_PASSWORD", "p%40"),
        ("MYSQL_DATABASE", "other"),
    ];
    let full = server(None, &all);
    assert_eq!(Database::Mysql(full.clone()).to_string(), "mysql://db:3307/other");
    assert_eq!(full.password, Some(Secret::new("p%40")), "a variable is not percent-encoded");
}

#[test]
fn addresses() {
    let whole = server(Some("mysql://us%65r:p@s/s?w%23@db.example:3307/my%20files"), &[("MYSQL_HOST", "ignored")]);
    assert_eq!(whole.user, "user");
    assert_eq!(whole.password, Some(Secret::new("p@s/s?w#")));
    assert_eq!(whole.addresses, [ServerAddress { host: "db.example".to_owned(), port: 3307 }]);
    assert_eq!(whole.name, "my files");

    let six = server(Some("mariadb://u@[::1]"), &[]);
    assert_eq!(six.addresses[0].host, "::1");
    assert_eq!(Database::Mysql(six).to_string(), "mysql://[::1]:3306/files");

    let split = server(Some("mysql://db/x"), &[("MYSQL_USER", "u"), ("MYSQL_PASSWORD", "p")]);
    assert_eq!((split.user.as_str(), split.password), ("u", Some(Secret::new("p"))));
}

#[test]
fn several_nodes_of_a_cluster() {
    let three = server(Some("mysql://u:p,@a,[::1]:3307,b:1/n"), &[]);
    assert_eq!(three.password, Some(Secret::new("p,")));
    assert_eq!(Database::Mysql(three).to_string(), "mysql://a:3306,[::1]:3307,b:1/n");
    let by_variables = server(None, &[("MYSQL_HOST", "a,::1"), ("MYSQL_PORT", "7"), ("MYSQL_USER", "u")]);
    assert_eq!(Database::Mysql(by_variables).to_string(), "mysql://a:7,[::1]:7/files");
    for address in ["mysql://u@a,/n", "mysql://u@,a/n", "mysql://u@a,,b/n", "mysql://u@a,b,c,d,e,f/n"] {
        assert!(complaint(Some(address), &[]).contains("addresses"), "{address}");
    }
    assert!(complaint(Some("mysql://u@a,b:x/n"), &[]).contains("port"));
}

#[test]
fn sqlite_addresses() {
    for (address, path) in
        [("sqlite:/a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db"), ("sqlite:///a/b.db", "/a/b.db"), ("sqlite:a?b", "a?b")]
    {
        assert_eq!(choose(Some(address), &[]).unwrap(), Some(Database::Sqlite(path.into())));
    }
    for address in ["sqlite:", "sqlite://", "sqlite::memory:"] {
        assert!(complaint(Some(address), &[]).contains("sqlite:PATH"));
    }
}

#[test]
fn a_password_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let set = [("MYSQL_USER", "u"), ("MYSQL_PASSWORD_FILE", path.as_str())];
    assert!(complaint(None, &set).contains("empty"));
    file.write_all(b"se cret\r\n").unwrap();
    assert_eq!(server(None, &set).password, Some(Secret::new("se cret")));
    file.write_all(&[b'x'; 5000]).unwrap();
    assert!(complaint(None, &set).contains("4096"));

    let missing = complaint(None, &[("MYSQL_USER", "u"), ("MYSQL_PASSWORD_FILE", "/no/such")]);
    assert!(missing.contains("MYSQL_PASSWORD_FILE") && missing.contains("/no/such"), "{missing}");
    assert!(complaint(None, &[set[0], set[1], ("MYSQL_PASSWORD", "x")]).contains("both set"));
}

#[test]
fn complaints_name_option_or_variable_and_never_the_password() {
    for (option, set, names) in [
        (None, vec![("MYSQL_HOST", "h"), ("MYSQL_PASSWORD", "hunter2")], "MYSQL_USER"),
        (None, vec![("MYSQL_USER", "u"), ("MYSQL_PORT", "0"), ("MYSQL_PASSWORD", "hunter2")], "MYSQL_PORT"),
        (Some("mysql://:hunter2@h/n"), vec![], "--db names no account"),
        (Some("mysql:/u:hunter2@h/n"), vec![], "--db starts with neither"),
        (Some("u:hunter2@h"), vec![], "--db starts with neither"),
        (Some("mysql://u:hunter2%@h/n"), vec![], "%25"),
        (Some("mysql://u:hunter2%zz@h/n"), vec![], "%25"),
        (Some("mysql://u:hunter2%ff@h/n"), vec![], "UTF-8"),
        (Some("mysql://u:hunter2@h:x/n"), vec![], "port"),
        (Some("mysql://u:hunter2@[::1]x/n"), vec![], "port"),
        (Some("mysql://u:hunter2@[::1/n"), vec![], "IPv6"),
        (Some("mysql://u:hunter2@h/n/m"), vec![], "after the database's name"),
        (Some("mysql://u:hunter2@h/n?ssl=1"), vec![], "ssl-mode"),
        (Some("mysql://u:hunter2@h/n?ssl-mode=verify-ca"), vec![], "verify-identity"),
        (Some("mysql://u:hunter2@h/n?ssl-ca=/no/such"), vec![], "/no/such"),
    ] {
        let complaint = complaint(option, &set);
        assert!(complaint.contains(names), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
    let shown = format!("{:?}", choose(Some("mysql://u:hunter2@h/n"), &[]).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn security_of_the_connection() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let tls = |address: &str, set: &[(&str, &str)]| server(Some(address), set).tls;
    assert_eq!(tls("mysql://u@h/n", &[]), Tls::default());
    assert_eq!(tls("mysql://u@h?ssl-mode=VERIFY_IDENTITY", &[]).mode, TlsMode::VerifyIdentity);
    let strict = Tls { mode: TlsMode::VerifyIdentity, ca: Some(file.path().to_owned()) };
    assert_eq!(tls(&format!("mysql://u@h/n?ssl-ca={path}"), &[]), strict);
    assert_eq!(server(None, &[("MYSQL_USER", "u"), ("MYSQL_SSL_CA", path)]).tls, strict);
    let loose = tls("mysql://u@h/n?ssl-mode=required", &[("MYSQL_SSL_CA", path), ("MYSQL_SSL_MODE", "disabled")]);
    assert_eq!(loose, Tls { mode: TlsMode::Required, ..strict });
}

#[test]
fn a_password_leaves_this_machine_only_where_that_is_safe_or_said() {
    let mode = |address: &str| server(Some(address), &[]).tls_mode();
    for here in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]", ""] {
        assert_eq!(mode(&format!("mysql://u:p@{here}/n")), TlsMode::Preferred, "{here}");
    }
    assert_eq!(mode("mysql://u:p@localhost,127.0.0.2/n"), TlsMode::Preferred);
    for away in ["h", "localhost,h", "10.0.0.1", "0.0.0.0", "localhost.example.org", "[::2]", "127.0.0.1.example.org"] {
        assert_eq!(mode(&format!("mysql://u:p@{away}/n")), TlsMode::VerifyIdentity, "{away}");
        assert_eq!(mode(&format!("mysql://u@{away}/n")), TlsMode::Preferred, "{away}: nothing to lose");
        assert_eq!(mode(&format!("mysql://u:p@{away}/n?ssl-mode=disabled")), TlsMode::Disabled, "{away}");
    }
}

#[test]
fn no_text_upsets_the_parser_or_shows_the_password() {
    TestRunner::deterministic()
        .run(
            &("(mysql|sqlite|mariadb)?:?/{0,3}[a-z:@/?%\\[\\]0-9]{0,12}", "[:@/?%\\[\\]a-z0-9=&]{0,12}"),
            |(start, end)| {
                let address = format!("{start}:HUNTER@{end}");
                let told = match choose(Some(&address), &[("MYSQL_USER", "u")]) {
                    Ok(Some(Database::Sqlite(_))) => String::new(),
                    Ok(chosen) => format!("{chosen:?} {}", chosen.as_ref().unwrap()),
                    Err(error) => error.to_string(),
                };
                assert!(!told.contains("HUNTER"), "{address}: {told}");
                Ok(())
            },
        )
        .unwrap();
}
