//! Gives libssh2 whole packets to encrypt, has it refuse malformed ones, and come back from a flood of others.
//!
//! The library as shipped calls the cipher once for each 16 bytes, which halves what a link carries, and ends the process where
//! a packet's length is none that a cipher can have, which any server may send. It also reads for as long as a server sends
//! what nobody waits for, without a look at a clock, and keeps all of that; and who writes a file in ranges rests for a round
//! trip between two. This derives edited copies of three of its functions, and of those for SFTP, from the sources that libssh2-sys
//! brings, compiles them as libssh2-sys does, and has the linker put them in the place of the old ones (`--wrap`). Nothing of
//! libssh2 is kept in this repository. Where anything is not as it was when the edits were written, the library is used as
//! shipped, and a build warning says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The only sources the edits were written for and tested with.
const VERSION: &str = "0.3.4";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-env-changed=ARCHIVER_LIBSSH2_AS_SHIPPED");
    println!("cargo::rustc-check-cfg=cfg(whole_packets)");
    println!("cargo::rustc-env=LIBSSH2_VERSION={}", libssh2_version().unwrap_or_else(|| "unknown".into()));
    if env::var_os("ARCHIVER_LIBSSH2_AS_SHIPPED").is_some() {
        return;
    }
    match whole_packets() {
        Ok((objects, symbols)) => {
            for symbol in symbols {
                println!("cargo::rustc-link-arg=-Wl,--wrap={symbol}");
            }
            for object in objects {
                println!("cargo::rustc-link-arg={}", object.display());
            }
            println!("cargo::rustc-cfg=whole_packets");
        }
        Err(why) => println!(
            "cargo::warning=SSH runs at about half speed, a malformed packet ends the process, and a flood of others is not left, libssh2 being used as shipped: {why}"
        ),
    }
}

/// What the library calls itself.
fn libssh2_version() -> Option<String> {
    let header = PathBuf::from(env::var_os("DEP_SSH2_ROOT")?).join("include/libssh2.h");
    let text = fs::read_to_string(header).ok()?;
    let said = text.lines().find_map(|line| line.strip_prefix("#define LIBSSH2_VERSION "))?;
    Some(said.trim().trim_matches('"').to_owned())
}

/// Compiles the edited functions; the objects to link, and whose place they take.
fn whole_packets() -> Result<(Vec<PathBuf>, Vec<String>), String> {
    let unix = env::var("CARGO_CFG_UNIX").is_ok() && env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    if !unix {
        return Err("the edits were tried on Linux only".into());
    }
    let root = PathBuf::from(env::var_os("DEP_SSH2_ROOT").ok_or("it is not the bundled one")?);
    let sources = sources()?.join("libssh2/src");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no folder to write to")?);
    let transport = edited(&sources.join("transport.c"), &TRANSPORT)?;
    let openssl = edited(&sources.join("openssl.c"), &OPENSSL)?;
    let cipher = cipher_crypt(&openssl)?;
    let sftp = edited(&sources.join("sftp.c"), &SFTP)?;
    // Beside the source that includes it.
    let (handle, header) = (edited(&sources.join("sftp.h"), &SFTP_HANDLE)?, out.join("sftp.h"));
    fs::write(&header, handle).map_err(|e| cannot("write", &header, &e))?;
    let of_sftp = functions_of_sftp(&sftp);
    let renamed: String = of_sftp.iter().map(|name| format!("#define {name} __wrap_{name}\n")).collect();
    // The one other function of it that is not static.
    let renamed = renamed + "#define sftp_dtor bounded_sftp_dtor\n";
    let mut build = cc::Build::new();
    for (name, text) in
        [("whole_transport.c", transport), ("whole_cipher.c", cipher), ("bounded_sftp.c", format!("{renamed}{sftp}"))]
    {
        let path = out.join(name);
        fs::write(&path, text).map_err(|e| cannot("write", &path, &e))?;
        build.file(path);
    }
    // As libssh2-sys compiles it: structures depend on these.
    build.include(root.join("include")).include(sources).include(root.join("build")).flag("-fvisibility=hidden");
    for name in [
        "HAVE_LONGLONG",
        "HAVE_SNPRINTF",
        "HAVE_UNISTD_H",
        "HAVE_INTTYPES_H",
        "HAVE_STDLIB_H",
        "HAVE_SYS_SELECT_H",
        "HAVE_SYS_SOCKET_H",
        "HAVE_SYS_IOCTL_H",
        "HAVE_SYS_TIME_H",
        "HAVE_SYS_UN_H",
        "HAVE_O_NONBLOCK",
        "LIBSSH2_OPENSSL",
        "HAVE_LIBCRYPT32",
        "HAVE_EVP_AES_128_CTR",
        "HAVE_POLL",
        "HAVE_GETTIMEOFDAY",
        "LIBSSH2_DH_GEX_NEW",
        "LIBSSH2_HAVE_ZLIB",
    ] {
        build.define(name, None);
    }
    if env::var("PROFILE").is_ok_and(|profile| profile.contains("debug")) {
        build.define("LIBSSH2DEBUG", None);
    }
    build.opt_level(2).warnings(false).cargo_metadata(false);
    let objects = build.try_compile_intermediates().map_err(|e| format!("the edited sources do not compile: {e}"))?;
    let others = ["ssh2_transport_send", "ssh2_transport_read", "ssh2_cipher_crypt"].map(str::to_owned);
    Ok((objects, others.into_iter().chain(of_sftp).collect()))
}

/// Where cargo keeps the sources of libssh2-sys.
fn sources() -> Result<PathBuf, String> {
    // Cargo names no other package's folder to a build script. Asking `cargo metadata` is the sure way, but without the
    // network it knows an answer only once every dependency of the workspace was fetched.
    let lock = env::var_os("CARGO_MANIFEST_DIR").map(|folder| PathBuf::from(folder).join("Cargo.lock"));
    let lock = lock.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    if !lock.contains(&format!("name = \"libssh2-sys\"\nversion = \"{VERSION}\"")) {
        return Err(format!("the edits are for libssh2-sys {VERSION}, and Cargo.lock names another"));
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let named = format!("libssh2-sys-{VERSION}");
    let unpacked = registries.into_iter().flatten().filter_map(|registry| Some(registry.ok()?.path().join(&named)));
    match unpacked.into_iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None => sources_by_metadata(),
    }
}

fn sources_by_metadata() -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let variable = |name| env::var(name).map_err(|_| format!("cargo sets no {name}"));
    let (manifest, target) = (variable("CARGO_MANIFEST_PATH")?, variable("TARGET")?);
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--offline",
            "--format-version=1",
            "--filter-platform",
            &target,
            "--manifest-path",
            &manifest,
        ])
        .output()
        .map_err(|e| format!("cargo metadata cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("cargo metadata failed: {}", said.lines().last().unwrap_or_default()))?;
    let packages = all["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "libssh2-sys").ok_or("libssh2-sys is not used")?;
    if package["version"] != VERSION {
        return Err(format!("libssh2-sys is {}, and the edits are for {VERSION}", package["version"]));
    }
    let manifest = package["manifest_path"].as_str().ok_or("libssh2-sys has no manifest")?;
    Path::new(manifest).parent().map(Path::to_owned).ok_or_else(|| "libssh2-sys has no folder".into())
}

/// One edit: what stands there, once, and what shall stand there.
type Edit = (&'static str, &'static str);

/// transport.c: both directions, and the functions' new names.
const TRANSPORT: [Edit; 14] = [
    (
        "\nint ssh2_transport_read(LIBSSH2_SESSION *session)\n{",
        "\nstatic __thread struct {\n    LIBSSH2_SESSION *session; /* whose socket was empty */\n    int sent; /* since the \
         last call */\n    int left; /* looks to be spared */\n} quiet;\n\nstatic __thread struct {\n    LIBSSH2_SESSION *session;\n    ssh2_time_t \
         since; /* reads of a socket that was never empty */\n    size_t unlooked; /* bytes since it was looked how much is \
         held */\n} busy;\n\n/* What messages take that have come and that nobody has taken yet, at least. */\n\
         static size_t held(LIBSSH2_SESSION *session)\n{\n    struct packet *packet = ssh2_list_first(&session->packets);\n    \
         size_t bytes = 0;\n    for(; packet; packet = ssh2_list_next(&packet->node))\n        bytes += packet->data_len + \
         128;\n    return bytes;\n}\n\nstatic int read_packet(LIBSSH2_SESSION *session);\n\n\
         /* Of a malformed packet nothing is known but that: not where the next one begins, nor what the buffers hold. */\n\
         int __wrap_ssh2_transport_read(LIBSSH2_SESSION *session)\n{\n    int rc = read_packet(session);\n    \
         if(rc == LIBSSH2_ERROR_DECRYPT || rc == LIBSSH2_ERROR_OUT_OF_BOUNDARY ||\n       rc == LIBSSH2_ERROR_PROTO)\n        \
         session->socket_state = SSH2_SOCKET_DISCONNECTED;\n    return rc;\n}\n\n\
         static int read_packet(LIBSSH2_SESSION *session)\n{",
    ),
    // Packets are whole blocks, the length itself counted where it is encrypted like the rest.
    (
        "            /* RFC4253 section 6.1 Maximum Packet Length says:",
        "            if(encrypted && (p->packet_length + (etm || CRYPT_FLAG_R(session,\n                SSH2_CRYPT_FLAG_PKTLEN_AAD | \
         SSH2_CRYPT_FLAG_REQUIRES_FULL_PACKET)\n                ? 0 : 4)) % blocksize)\n                return \
         LIBSSH2_ERROR_DECRYPT;\n\n            /* RFC4253 section 6.1 Maximum Packet Length says:",
    ),
    // Its assertions, as errors.
    (
        "        assert((len % blocksize) == 0);\n",
        "        if(len % blocksize) {\n            SSH2_SAFEFREE(session, p->payload);\n            return \
         LIBSSH2_ERROR_DECRYPT;\n        }\n",
    ),
    (
        "        assert(remainbuf >= 0);\n",
        "        if(remainbuf < 0)\n            return LIBSSH2_ERROR_OUT_OF_BOUNDARY;\n",
    ),
    ("        assert(numdecrypt >= 0);\n", "        if(numdecrypt < 0)\n            return LIBSSH2_ERROR_DECRYPT;\n"),
    // A packet says at least of what kind it is.
    (
        "        session->fullpacket_payload_len -= p->padding_length;\n",
        "        session->fullpacket_payload_len -= p->padding_length;\n        if(session->fullpacket_payload_len < 1) {\n            \
         SSH2_SAFEFREE(session, p->payload);\n            return LIBSSH2_ERROR_DECRYPT;\n        }\n        \
         /* The names of the ways to log in are printable, or whoever shows them would show anything. */\n        \
         if(p->payload[0] == SSH_MSG_USERAUTH_FAILURE) {\n            size_t at;\n            for(at = 5; at + 1 < \
         (size_t)session->fullpacket_payload_len; at++) {\n                if(p->payload[at] < 0x20 || p->payload[at] > 0x7e) {\n\
                             SSH2_SAFEFREE(session, p->payload);\n                    return LIBSSH2_ERROR_PROTO;\n                \
         }\n            }\n        }\n",
    ),
    (
        "\nint ssh2_transport_send(LIBSSH2_SESSION *session,\n",
        "\nint __wrap_ssh2_transport_send(LIBSSH2_SESSION *session,\n",
    ),
    // Decrypting: one call over the whole span, with the caller's own flags.
    ("        ssize_t decryptlen = SSH2_MIN(blocksize, len);\n", "        ssize_t decryptlen = len;\n"),
    (
        "        int lowerfirstlast = IS_FIRST(firstlast) ? FIRST_BLOCK :\n            (len <= blocksize ? firstlast : \
         MIDDLE_BLOCK);\n",
        "        int lowerfirstlast = firstlast;\n",
    ),
    // Encrypting: the loop's first turn takes it all, the MAC of an integrated cipher included.
    (
        "            for(i = etm_crypt_offset; i < packet_length;\n                i += session->local.crypt->blocksize) {\n",
        "            size_t whole = packet_length - etm_crypt_offset;\n            if(CRYPT_FLAG_L(session, \
         SSH2_CRYPT_FLAG_INTEGRATED_MAC) && local_mac)\n                whole += local_mac->mac_len;\n            \
         if(session->local.crypt->crypt(session, 0,\n                                           \
         &p->outbuf[etm_crypt_offset], whole,\n                                           \
         &session->local.crypt_abstract,\n                                           FIRST_BLOCK | LAST_BLOCK))\n                \
         return LIBSSH2_ERROR_ENCRYPT;\n            for(i = packet_length; i < packet_length;\n                i += \
         session->local.crypt->blocksize) {\n",
    ),
    // Whoever waits in the library for one kind of message reads others until the socket is empty, which a server can keep it
    // from being. So he is sent back after a tenth of a second to whoever called him, who has limits, where only the socket can tell
    // what comes next; and what nobody takes is bounded. A window of 16 MiB may wait, in packets of a hundred bytes.
    ("            p->writeidx += nread;\n", "            p->writeidx += nread;\n            busy.unlooked += nread;\n"),
    // The library looks for answers before each packet it sends. Where there was none a moment ago, and we did nothing but
    // send since, a few of these looks are spared. Nobody sleeps on a look that was spared: without a packet sent
    // since the last call, the next one looks.
    (
        "            ssize_t nread;\n\n            /* move any remainder",
        "            ssize_t nread;\n\n            if(quiet.session == session && quiet.sent && quiet.left > 0) {\n                \
         quiet.sent = 0;\n                quiet.left--;\n                session->socket_block_directions |=\n                    \
         LIBSSH2_SESSION_BLOCK_INBOUND;\n                return LIBSSH2_ERROR_EAGAIN;\n            }\n            \
         quiet.session = NULL;\n\n            if(busy.session != session) {\n                busy.session = session;\n                \
         busy.since = 0;\n            }\n            if(busy.unlooked >= 1024 * 1024) {\n                busy.unlooked = 0;\n                \
         if(held(session) > 64 * 1024 * 1024)\n                    return LIBSSH2_ERROR_PROTO;\n            }\n            \
         if(!busy.since)\n                busy.since = ssh2_now();\n            else if(ssh2_now() - busy.since >= 100000) {\n                \
         busy.since = 0;\n                session->socket_block_directions |=\n                    LIBSSH2_SESSION_BLOCK_INBOUND;\n                \
         return LIBSSH2_ERROR_EAGAIN;\n            }\n\n            /* move any remainder",
    ),
    (
        "                if(nread < 0 && nread == -EAGAIN) {\n",
        "                if(nread < 0 && nread == -EAGAIN) {\n                    busy.since = 0;\n                    \
         quiet.session = session;\n                    \
         quiet.sent = 0;\n                    quiet.left = 7;\n",
    ),
    (
        "    ret = SSH2_SEND(session, p->outbuf, total_length,\n",
        "    quiet.sent = 1;\n    ret = SSH2_SEND(session, p->outbuf, total_length,\n",
    ),
];

/// The call that asks for an integrated MAC alone, which the one above has done.
const LAST_CALL: &str =
    "            if(CRYPT_FLAG_L(session, SSH2_CRYPT_FLAG_INTEGRATED_MAC)) {\n                int authlen =";

/// openssl.c: the cipher in place, of any length.
const OPENSSL: [Edit; 5] = [
    ("\nint ssh2_cipher_crypt(ssh2_cipher_ctx *ctx,", "\nint __wrap_ssh2_cipher_crypt(ssh2_cipher_ctx *ctx,"),
    (
        "{\n    unsigned char buf[EVP_MAX_BLOCK_LENGTH];\n    int ret = 1;\n    int rc = 1;\n",
        "{\n    int ret = 1;\n    int rc = 1;\n",
    ),
    ("    if(blocksize > sizeof(buf) ||\n       blocksize <", "    if(blocksize <"),
    (
        "        ret = EVP_Cipher(*ctx, buf + aadlen, block + aadlen, cryptlen);\n",
        "        ret = EVP_Cipher(*ctx, block + aadlen, block + aadlen, cryptlen);\n",
    ),
    ("        memcpy(block + aadlen, buf + aadlen, cryptlen);\n", ""),
];

/// sftp.c: answers to what was never asked are kept only so far, and are not searched through for ever. Of those that are due
/// there are some three hundred at most, of 30,000 bytes.
///
/// Also, who goes to another place of a file that is written leaves what is under way as it is. The library forgets it, so that a
/// connection would have to rest for a round trip first.
const SFTP: [Edit; 3] = [
    (
        "    packet = SSH2_ALLOC(session, sizeof(struct sftp_packet));\n",
        "    {\n        size_t bytes = data_len;\n        for(packet = ssh2_list_first(&sftp->packets); packet;\n            packet = \
     ssh2_list_next(&packet->node))\n            bytes += packet->data_len + 4096;\n        if(bytes > 32 * 1024 * 1024) {\n            \
     session->socket_state = SSH2_SOCKET_DISCONNECTED;\n            return ssh2_err(session, LIBSSH2_ERROR_PROTO,\n                            \
     \"Answers to what nobody has asked\");\n        }\n    }\n    packet = SSH2_ALLOC(session, sizeof(struct sftp_packet));\n",
    ),
    (
        "            ssh2_store_u64(&s, handle->u.file.offset_sent);\n            handle->u.file.offset_sent += size; /* advance",
        "            ssh2_store_u64(&s, handle->u.file.offset_sent + handle->u.file.shift);\n            \
     handle->u.file.offset_sent += size; /* advance",
    ),
    (
        "    if(handle->u.file.offset == offset && handle->u.file.offset_sent == offset)\n        return;\n",
        "    {\n        struct sftp_pipeline_chunk *chunk = ssh2_list_first(&handle->packet_list);\n        \
     if(chunk && chunk->packet[4] == SSH_FXP_WRITE) {\n            handle->u.file.shift = offset - handle->u.file.offset_sent;\n            \
     return;\n        }\n        handle->u.file.shift = 0;\n    }\n    if(handle->u.file.offset == offset && handle->u.file.offset_sent == offset)\n        \
     return;\n",
    ),
];

/// sftp.h, which sftp.c alone reads: how far what is written next stands from where it would stand.
const SFTP_HANDLE: [Edit; 1] = [(
    "            libssh2_uint64_t offset_sent;\n",
    "            libssh2_uint64_t offset_sent;\n            libssh2_uint64_t shift;\n",
)];

/// The public functions that sftp.c defines.
fn functions_of_sftp(text: &str) -> Vec<String> {
    let defined = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let named = defined.filter_map(|line| {
        let name = &line[line.find("libssh2_sftp_")?..];
        Some(name[..name.find('(')?].to_owned())
    });
    named.collect()
}

/// A file with its edits, each of which must find its place exactly once.
fn edited(path: &Path, edits: &[Edit]) -> Result<String, String> {
    let mut text = fs::read_to_string(path).map_err(|e| cannot("read", path, &e))?;
    for (old, new) in edits {
        if text.matches(old).count() != 1 {
            return Err(format!("{} is not as the edits expect it near {:?}", path.display(), old.trim()));
        }
        text = text.replacen(old, new, 1);
    }
    if path.ends_with("transport.c") {
        if text.matches(LAST_CALL).count() != 1 {
            return Err(format!("{} has no separate call for the MAC", path.display()));
        }
        text = text.replacen(LAST_CALL, &LAST_CALL.replacen("if(", "if(0 && ", 1), 1);
    }
    Ok(text)
}

/// The one function of openssl.c that is edited, with what it needs.
fn cipher_crypt(text: &str) -> Result<String, String> {
    let start = text.find("\nint __wrap_ssh2_cipher_crypt(").ok_or("openssl.c has no ssh2_cipher_crypt")?;
    let len = text[start..].find("\n}\n").ok_or("ssh2_cipher_crypt has no end")?;
    let includes = "#include \"libssh2_priv.h\"\n#include <assert.h>\n";
    Ok(format!("{includes}{}\n}}\n", &text[start..start + len]))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
