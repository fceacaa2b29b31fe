use super::*;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e12..1e12f64).prop_map(|number| Value::from((number * 1024.0).round() / 1024.0)),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn args() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(value(), 0..4)
}

fn kwargs() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("[a-z]{1,5}", value(), 0..3).prop_map(|map| map.into_iter().collect())
}

fn message() -> impl Strategy<Value = WampMessage> {
    let id = || 0..1u64 << 53;
    let uri = || "[a-z.]{1,20}";
    prop_oneof![
        uri().prop_map(|realm| WampMessage::Hello { realm }),
        id().prop_map(|session| WampMessage::Welcome { session }),
        (uri(), ".*").prop_map(|(reason, text)| WampMessage::Abort { reason, text }),
        uri().prop_map(|reason| WampMessage::Goodbye { reason }),
        (id(), id(), uri(), args()).prop_map(|(request_type, request, uri, args)| WampMessage::Error {
            request_type,
            request,
            uri,
            args
        }),
        (id(), uri(), args()).prop_map(|(request, topic, args)| WampMessage::Publish { request, topic, args }),
        (id(), uri()).prop_map(|(request, topic)| WampMessage::Subscribe { request, topic }),
        (id(), id()).prop_map(|(request, subscription)| WampMessage::Subscribed { request, subscription }),
        (id(), args()).prop_map(|(subscription, args)| WampMessage::Event { subscription, args }),
        (id(), uri(), args(), kwargs()).prop_map(|(request, procedure, args, kwargs)| WampMessage::Call {
            request,
            procedure,
            args,
            kwargs
        }),
        (id(), args()).prop_map(|(request, args)| WampMessage::Result { request, args }),
        (id(), uri()).prop_map(|(request, procedure)| WampMessage::Register { request, procedure }),
        (id(), id()).prop_map(|(request, registration)| WampMessage::Registered { request, registration }),
        (id(), id(), args(), kwargs()).prop_map(|(request, registration, args, kwargs)| WampMessage::Invocation {
            request,
            registration,
            args,
            kwargs
        }),
        (id(), args()).prop_map(|(request, args)| WampMessage::Yield { request, args }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in message()) {
        prop_assert_eq!(WampMessage::decode(&message.encode()).unwrap(), Some(message));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        let _ = WampMessage::decode(&text);
    }

    #[test]
    fn any_list_is_read_or_refused(code in 0..80u64, rest in prop::collection::vec(value(), 0..7)) {
        let mut items = vec![Value::from(code)];
        items.extend(rest);
        let _ = WampMessage::decode(&Value::from(items).to_string());
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(message in message(), at in 0..1000usize, byte in any::<u8>()) {
        let mut text = message.encode().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let _ = WampMessage::decode(&String::from_utf8_lossy(&text));
        let _ = WampMessage::decode(&String::from_utf8_lossy(&text[..at]));
    }
}

#[test]
fn captured_messages_are_read() {
    let taken = r#"[8,64,1,{},"wamp.error.procedure_already_exists",["register for already registered procedure"]]"#;
    assert!(WampMessage::decode(taken).unwrap().unwrap().answers(1));
    let invocation = r#"[68,30,7677026012119096,{},["stop","acq"]]"#;
    let expected = WampMessage::Invocation {
        request: 30,
        registration: 7_677_026_012_119_096,
        args: vec!["stop".into(), "acq".into()],
        kwargs: Map::new(),
    };
    assert_eq!(WampMessage::decode(invocation).unwrap(), Some(expected));
    assert_eq!(WampMessage::decode("[17,3,44]").unwrap(), None, "PUBLISHED is nobody's business");
}

#[test]
fn malformed_messages_name_what_they_lack() {
    assert_eq!(
        WampMessage::decode("[68,30]").unwrap_err().to_string(),
        "WAMP message 68 lacks a registration at its place"
    );
    assert_eq!(WampMessage::decode("{}").unwrap_err().to_string(), "WAMP message 0 lacks a list at its place");
    assert!(WampMessage::decode(&"[".repeat(100_000)).unwrap_err().to_string().starts_with("Not JSON: "));
    assert!(WampMessage::decode("[68,30,-1,{}]").is_err());
}

#[test]
fn empty_arguments_are_left_out() {
    let publish = WampMessage::Publish { request: 3, topic: "a.b".to_owned(), args: vec![json!([{}, 1.0])] };
    assert_eq!(publish.encode(), r#"[16,3,{},"a.b",[[{},1.0]]]"#);
    let call = WampMessage::Call { request: 1, procedure: "p".to_owned(), args: vec![], kwargs: Map::new() };
    assert_eq!(call.encode(), r#"[48,1,{},"p"]"#);
}
