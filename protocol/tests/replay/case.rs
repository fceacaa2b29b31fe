//! What a capture folder holds: the bytes of both directions, the server's words, and the trees before the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A recorded session of two stock programs.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) c2s: Vec<u8>,
    pub(crate) s2c: Vec<u8>,
    /// The server's words behind the program's name.
    pub(crate) words: Vec<String>,
    pub(crate) exit: i32,
    /// A literal byte was damaged on its way, once.
    pub(crate) flipped: bool,
    /// Something in the source could not be read; owners are not those of the tree.
    pub(crate) unreadable: bool,
    /// Releases of client and server.
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) source: Tree,
    pub(crate) dest: Tree,
    /// Nothing is known of the source.
    pub(crate) unknown_source: bool,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) nsec: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
    Fifo,
}

impl Node {
    pub(crate) fn content(&self) -> Option<&[u8]> {
        if let Kind::File(content) = &self.kind { Some(content) } else { None }
    }
}

pub(crate) fn folder() -> PathBuf {
    // From this crate, and from that of the fuzzer.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [own.join("tests/captures"), own.join("../protocol/tests/captures")];
    folders.into_iter().find(|folder| folder.is_dir()).unwrap()
}

/// All cases, in the order of their numbers.
pub(crate) fn all() -> Vec<Case> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort_by_key(|name| number(name));
    names.iter().map(|name| load(name)).collect()
}

pub(crate) fn load(name: &str) -> Case {
    let folder = folder();
    let at = folder.join(name);
    let meta = fs::read_to_string(at.join("meta.json")).unwrap();
    let text = |key| field(&meta, key).unwrap_or_default().trim_matches('"').to_string();
    let given = |key| field(&meta, key).is_some_and(|value| value != "null");
    let words = fs::read_to_string(at.join("server-argv.txt")).unwrap();
    let (source, dest) = trees(&folder, &text("tree"));
    Case {
        name: name.to_string(),
        c2s: fs::read(at.join("c2s.bin")).unwrap(),
        s2c: fs::read(at.join("s2c.bin")).unwrap(),
        words: words.lines().skip(1).map(str::to_string).collect(),
        exit: text("exit").parse().unwrap(),
        flipped: given("flip"),
        unreadable: given("unreadable"),
        client: text("client"),
        server: text("server"),
        source,
        dest,
        unknown_source: text("tree") == "none",
    }
}

impl Case {
    /// The number before the name.
    pub(crate) fn number(&self) -> u32 {
        number(&self.name)
    }

    /// The sources were absolute with `-R`; such names lose their slash when they are read.
    pub(crate) fn has_absolute_names(&self) -> bool {
        matches!(self.number(), 127..=130 | 235)
    }

    /// What the source has under a name of the list.
    pub(crate) fn node(&self, name: &[u8]) -> Option<&Node> {
        // Two captures name the folder itself as the source.
        let name = match name.strip_prefix(b"src/") {
            Some(below) => below,
            None if name == b"src" => b".",
            None => name,
        };
        self.source.get(name)
    }
}

fn number(name: &str) -> u32 {
    name.split('-').next().unwrap().parse().unwrap()
}

/// A value of a flat JSON object with one member a line; our own writer made it.
fn field<'m>(meta: &'m str, key: &str) -> Option<&'m str> {
    let start = format!(" \"{key}\": ");
    meta.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.trim_end_matches(','))
}

fn trees(folder: &Path, name: &str) -> (Tree, Tree) {
    if name == "bigflist" {
        return big_trees();
    }
    let text = fs::read_to_string(folder.join(format!("{name}.tree"))).unwrap();
    let (mut source, mut dest) = (Tree::new(), Tree::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [side, kind, name, mode, uid, gid, mtime, nsec, data] = fields[..] else { panic!("{line}") };
        let kind = match kind {
            "F" => Kind::File(hex(data)),
            "H" => source[&unquote(data)].kind.clone(),
            "D" => Kind::Dir,
            "L" => Kind::Link(unquote(data)),
            "P" => Kind::Fifo,
            _ => panic!("{line}"),
        };
        let node = Node {
            kind,
            mode: u32::from_str_radix(mode, 8).unwrap(),
            uid: uid.parse().unwrap(),
            gid: gid.parse().unwrap(),
            mtime: mtime.parse().unwrap(),
            nsec: nsec.parse().unwrap(),
        };
        let tree = if side == "src" { &mut source } else { &mut dest };
        tree.insert(unquote(name), node);
    }
    (source, dest)
}

/// 30 folders of 60 files each; the other side lacks two of each.
fn big_trees() -> (Tree, Tree) {
    let mut source = Tree::new();
    let mut put = |name: String, kind, mode, mtime| {
        source.insert(name.into_bytes(), Node { kind, mode, uid: 0, gid: 0, mtime, nsec: 0 });
    };
    put(".".into(), Kind::Dir, 0o755, 1_700_000_100);
    for dir in 0..30 {
        put(format!("dir{dir:02}"), Kind::Dir, 0o755, 1_700_000_000 + dir);
        for file in 0..60 {
            let content = format!("{dir} {file}\n").into_bytes();
            put(format!("dir{dir:02}/file{file:03}"), Kind::File(content), 0o644, 1_700_000_000 + dir + file);
        }
    }
    let mut dest = source.clone();
    dest.retain(|name, node| node.content().is_none() || !(name.ends_with(b"005") || name.ends_with(b"017")));
    (source, dest)
}

fn hex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn unquote(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, later)) = rest.split_first() {
        if first == b'%' {
            out.extend(hex(std::str::from_utf8(&later[..2]).unwrap()));
            rest = &later[2..];
        } else {
            out.push(first);
            rest = later;
        }
    }
    out
}
