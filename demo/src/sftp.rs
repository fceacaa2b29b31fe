//! SFTP at the storage node, for the demo without rsync: the few requests that the archiver makes.

use russh_sftp::protocol::{
    Attrs, Data, File as Named, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
};
use russh_sftp::server::Handler;
use std::collections::HashMap;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// One SFTP session.
pub(crate) struct Files {
    /// Where a login begins.
    home: PathBuf,
    open: HashMap<String, File>,
    opened: u64,
    /// What is said instead of syncing.
    refusal: Option<StatusCode>,
    /// Whether permissions and times are set.
    sets: bool,
}

impl Files {
    pub(crate) fn new(home: PathBuf) -> Self {
        Self { home, open: HashMap::new(), opened: 0, refusal: None, sets: true }
    }

    /// Refuses in these words what a server need not do: to sync, and unless `sets` to set permissions and times.
    #[allow(dead_code, reason = "the tests share these files with the demo")]
    pub(crate) fn refusing(self, refusal: StatusCode, sets: bool) -> Self {
        Self { refusal: Some(refusal), sets, ..self }
    }

    fn at(&self, path: String) -> PathBuf {
        self.home.join(path)
    }

    fn file(&self, handle: &str) -> Result<&File, StatusCode> {
        self.open.get(handle).ok_or(StatusCode::Failure)
    }
}

fn code(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

fn done(id: u32, done: io::Result<()>) -> Result<Status, StatusCode> {
    done.map_err(|error| code(&error))?;
    Ok(Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en".into() })
}

fn attrs(id: u32, meta: io::Result<Metadata>) -> Result<Attrs, StatusCode> {
    let meta = meta.map_err(|error| code(&error))?;
    let attrs = FileAttributes {
        size: Some(meta.len()),
        permissions: Some(meta.mode()),
        atime: u32::try_from(meta.atime()).ok(),
        mtime: u32::try_from(meta.mtime()).ok(),
        ..FileAttributes::default()
    };
    Ok(Attrs { id, attrs })
}

impl Handler for Files {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let mut options = OpenOptions::new();
        options.read(flags.contains(OpenFlags::READ)).write(flags.contains(OpenFlags::WRITE));
        options.create_new(flags.contains(OpenFlags::EXCLUDE)).mode(attrs.permissions.unwrap_or(0o600) & 0o777);
        let file = options.open(self.at(filename)).map_err(|error| code(&error))?;
        self.opened += 1;
        let handle = self.opened.to_string();
        self.open.insert(handle.clone(), file);
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusCode> {
        self.open.remove(&handle).ok_or(StatusCode::Failure)?;
        done(id, Ok(()))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusCode> {
        let mut data = vec![0; len.min(256 << 10) as usize];
        match self.file(&handle)?.read_at(&mut data, offset) {
            Ok(0) => Err(StatusCode::Eof),
            Ok(n) => {
                data.truncate(n);
                Ok(Data { id, data })
            }
            Err(error) => Err(code(&error)),
        }
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Result<Status, StatusCode> {
        done(id, self.file(&handle)?.write_all_at(&data, offset))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        attrs(id, fs::symlink_metadata(self.at(path)))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        attrs(id, fs::metadata(self.at(path)))
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusCode> {
        if let (false, Some(refusal)) = (self.sets, self.refusal) {
            return Err(refusal);
        }
        let path = self.at(path);
        let set = || {
            if let Some(mode) = attrs.permissions {
                fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(mtime) = attrs.mtime {
                let mtime = UNIX_EPOCH + Duration::from_secs(mtime.into());
                File::open(&path)?.set_times(FileTimes::new().set_modified(mtime))?;
            }
            Ok(())
        };
        done(id, set())
    }

    async fn mkdir(&mut self, id: u32, path: String, _attrs: FileAttributes) -> Result<Status, StatusCode> {
        done(id, fs::create_dir(self.at(path)))
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusCode> {
        done(id, fs::remove_file(self.at(filename)))
    }

    /// Never over another file, as version 3 of the protocol has it.
    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusCode> {
        let (from, to) = (self.at(from), self.at(to));
        done(id, fs::hard_link(&from, to).and_then(|()| fs::remove_file(from)))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusCode> {
        let path = fs::canonicalize(self.at(path)).map_err(|error| code(&error))?;
        let file =
            Named { filename: path.display().to_string(), longname: String::new(), attrs: FileAttributes::default() };
        Ok(Name { id, files: vec![file] })
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, StatusCode> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        // The handle behind its length.
        match (request.as_str(), data.get(4..).map(String::from_utf8_lossy)) {
            ("fsync@openssh.com", Some(handle)) => Ok(done(id, self.file(&handle)?.sync_all())?.into()),
            _ => Err(StatusCode::OpUnsupported),
        }
    }
}
