//! The warehouse: one URL under which everything durable lives, through `object_store`.
//!
//! Opening one checks `<warehouse>/format`, so that no other module meets a layout it does not know. [`catalog`] is the append-only
//! log of definitions, [`lease`] says which process writes what, [`checkpoints`] keeps online states. Every file is put whole, and put only
//! if absent where two processes could write the same one. Not here: history (`history`).

pub mod catalog;
pub mod checkpoints;
pub mod lease;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use url::Url;

pub use self::catalog::{Append, CatalogLog};
pub use self::lease::{Holder, Lease, LeaseRecord};
use crate::error::{Error, Result};

/// The version of the layout of files that this program writes, and the newest it reads.
pub const LAYOUT_VERSION: u32 = 1;

/// The version of the semantics: hashes, math functions, the order of events; whatever decides the bits of a value.
pub const SEMANTICS_VERSION: u32 = 1;

const FORMAT_FILE: &str = "format";

/// What `<warehouse>/format` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// The layout of files and folders.
    pub layout: u32,
    /// What the values mean.
    pub semantics: u32,
}

impl Format {
    /// The versions of this program.
    pub const CURRENT: Format = Format { layout: LAYOUT_VERSION, semantics: SEMANTICS_VERSION };
}

/// An open warehouse; cheap to clone.
#[derive(Debug, Clone)]
pub struct Warehouse {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Ends with a slash.
    url: Url,
    root: Arc<dyn ObjectStore>,
    store: Arc<dyn ObjectStore>,
    scan_url: ObjectStoreUrl,
    format: Format,
    /// The folder whose files are forced to the disk; `None` where the store sees to it, or nobody.
    synced: Option<PathBuf>,
    /// The folders whose own places are on the disk already.
    placed: Mutex<HashSet<PathBuf>>,
}

/// When a file in a folder of this machine counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk: it outlives a crash of the machine.
    Disk,
    /// Once the operating system has it: it outlives a crash of this process. For tests, and data that can be made again.
    Process,
}

impl Warehouse {
    /// Opens the warehouse at a path or URL, and makes an empty one where there is none.
    ///
    /// - A path or a `file://` URL names a folder, which is created with its parents; `memory://` is a new warehouse of this process,
    ///   gone with its last clone.
    /// - Errors: [`crate::error::Kind::Invalid`] for a location that cannot be one; [`crate::error::Kind::Data`] where the format file is
    ///   of a newer program or damaged; [`crate::error::Kind::Unavailable`] where the storage does not answer.
    pub async fn open(location: &str) -> Result<Self> {
        Self::open_with(location, Durability::Disk).await
    }

    /// As [`Warehouse::open`], with the choice of what survives. Only folders know the difference.
    pub async fn open_with(location: &str, durability: Durability) -> Result<Self> {
        let (url, root) = open_store(location)?;
        let folder = url.to_file_path().ok().filter(|_| url.scheme() == "file" && durability == Durability::Disk);
        Self::new(url, root, folder).await
    }

    /// Opens the warehouse under the path of `url` in a store whose paths are those of the whole host.
    pub async fn open_with_store(url: Url, root: Arc<dyn ObjectStore>) -> Result<Self> {
        Self::new(url, root, None).await
    }

    async fn new(mut url: Url, root: Arc<dyn ObjectStore>, synced: Option<PathBuf>) -> Result<Self> {
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|e| Error::invalid(format!("warehouse \"{url}\" has no usable path: {e}")))?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), prefix));
        let format = check_format(&url, store.as_ref()).await?;
        let scan_url = ObjectStoreUrl::parse(format!("asof://{}/", uuid::Uuid::new_v4().simple()))?;
        Ok(Self { inner: Arc::new(Inner { url, root, store, scan_url, format, synced, placed: Mutex::default() }) })
    }

    /// Where it is; ends with a slash.
    pub fn url(&self) -> &Url {
        &self.inner.url
    }

    /// The store, rooted at the warehouse.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// The versions its format file carries.
    pub fn format(&self) -> Format {
        self.inner.format
    }

    /// The log of definitions.
    pub fn catalog(&self) -> CatalogLog {
        CatalogLog::new(self.clone())
    }

    /// The store whose paths are those of the whole host, as Delta's log store wants it.
    pub(crate) fn root_store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.root
    }

    /// Under which URL DataFusion's scans find [`Warehouse::store`], once registered.
    pub(crate) fn scan_url(&self) -> &ObjectStoreUrl {
        &self.inner.scan_url
    }

    /// Lets plans that run in this environment read from the warehouse; again is harmless.
    pub(crate) fn register(&self, runtime: &RuntimeEnv) {
        runtime.register_object_store(self.inner.scan_url.as_ref(), Arc::clone(&self.inner.store));
    }

    /// How a file is named in messages.
    pub(crate) fn name_of(&self, path: &Path) -> String {
        format!("{}{path}", self.inner.url)
    }

    /// Puts a file only if there is none of its name. Returns whether it did.
    pub(crate) async fn put_if_absent(&self, path: &Path, bytes: impl Into<PutPayload>) -> Result<bool> {
        put_if_absent(self.store().as_ref(), path, bytes.into())
            .await
            .map_err(|e| Error::unavailable(format!("cannot write \"{}\": {e}", self.name_of(path))))
    }

    /// Returns once files that were put are on the disk, with all that leads to them.
    pub(crate) async fn sync(&self, paths: Vec<Path>) -> Result<()> {
        let Some(folder) = self.inner.synced.clone().filter(|_| !paths.is_empty()) else { return Ok(()) };
        let files = paths.iter().map(|path| folder.join(path.as_ref())).collect::<Vec<_>>();
        // A new file is an entry of its folder; a folder is one of the folder above it, which changes but once.
        let mut folders = BTreeSet::new();
        let mut placing = Vec::new();
        for file in &files {
            for above in file.ancestors().skip(1).take_while(|above| above.starts_with(&folder)) {
                folders.insert(above.to_owned());
                if lock(&self.inner.placed).contains(above) {
                    break;
                }
                placing.push(above.to_owned());
            }
        }
        let sync = move || -> std::io::Result<()> {
            files.iter().try_for_each(|file| File::open(file)?.sync_all())?;
            folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
        };
        let done = tokio::task::spawn_blocking(sync).await;
        let done = done.map_err(|e| Error::internal(format!("writing to the disk stopped: {e}")))?;
        done.map_err(|e| Error::unavailable(format!("cannot write warehouse \"{}\" to the disk: {e}", self.inner.url)))?;
        lock(&self.inner.placed).extend(placing);
        Ok(())
    }

    /// Removes a folder whose files are gone, where storage has folders at all.
    pub(crate) fn remove_empty_folder(&self, path: &Path) {
        if let Some(folder) = self.inner.url.to_file_path().ok().filter(|_| self.inner.url.scheme() == "file") {
            let folder = folder.join(path.as_ref());
            // One that is not empty stays, which is right.
            let _ = std::fs::remove_dir(&folder);
            lock(&self.inner.placed).remove(&folder);
        }
    }

    /// The bytes of a file; `None` where there is none.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<bytes::Bytes>> {
        let failed = |e| Error::unavailable(format!("cannot read \"{}\": {e}", self.name_of(path)));
        match self.store().get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one place that knows which kinds of storage there are.
fn open_store(location: &str) -> Result<(Url, Arc<dyn ObjectStore>)> {
    let Some(url) = Url::parse(location).ok().filter(|url| url.scheme().len() > 1) else {
        return open_folder(FilePath::new(location));
    };
    match url.scheme() {
        "file" => {
            let path =
                url.to_file_path().map_err(|()| Error::invalid(format!("warehouse \"{location}\" names no folder of this machine")))?;
            open_folder(&path)
        }
        "memory" => Ok((url, Arc::new(InMemory::new()))),
        scheme => {
            let (store, _) = object_store::parse_url_opts(&url, std::env::vars())
                .map_err(|e| Error::invalid(format!("warehouse \"{location}\" has scheme \"{scheme}\", which cannot be opened: {e}")))?;
            Ok((url, Arc::from(store)))
        }
    }
}

fn open_folder(path: &FilePath) -> Result<(Url, Arc<dyn ObjectStore>)> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("warehouse has an empty path"));
    }
    let cannot = |e: std::io::Error| Error::unavailable(format!("cannot open warehouse \"{}\": {e}", path.display()));
    let absolute: PathBuf = std::path::absolute(path).map_err(cannot)?;
    std::fs::create_dir_all(&absolute).map_err(cannot)?;
    let absolute = absolute.canonicalize().map_err(cannot)?;
    let url =
        Url::from_directory_path(&absolute).map_err(|()| Error::invalid(format!("warehouse \"{}\" has no usable path", path.display())))?;
    Ok((url, Arc::new(LocalFileSystem::new())))
}

async fn check_format(url: &Url, store: &dyn ObjectStore) -> Result<Format> {
    let path = Path::from(FORMAT_FILE);
    let unavailable = |e| Error::unavailable(format!("cannot open warehouse \"{url}\": {e}"));
    // A second round finds what another process has put between the look and the put.
    for _ in 0..2 {
        let bytes = match store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(unavailable)?,
            Err(object_store::Error::NotFound { .. }) => {
                let text = serde_json::to_vec(&Format::CURRENT).map_err(|e| Error::internal(format!("format cannot be encoded: {e}")))?;
                if put_if_absent(store, &path, text.into()).await.map_err(unavailable)? {
                    return Ok(Format::CURRENT);
                }
                continue;
            }
            Err(e) => return Err(unavailable(e)),
        };
        let found: Format = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(format!("format of warehouse \"{url}\" is damaged (file \"{FORMAT_FILE}\"): {e}")))?;
        if found.layout > LAYOUT_VERSION || found.semantics > SEMANTICS_VERSION {
            return Err(Error::data(format!(
                "warehouse \"{url}\" was written by a newer program: layout {} and semantics {}, where this program knows layout \
                 {LAYOUT_VERSION} and semantics {SEMANTICS_VERSION}",
                found.layout, found.semantics
            )));
        }
        if found.layout == 0 || found.semantics == 0 {
            return Err(Error::data(format!("format of warehouse \"{url}\" is damaged: a version is 0")));
        }
        return Ok(found);
    }
    Err(Error::unavailable(format!("cannot open warehouse \"{url}\": its format file comes and goes")))
}

async fn put_if_absent(store: &dyn ObjectStore, path: &Path, payload: PutPayload) -> object_store::Result<bool> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(path, payload, options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
