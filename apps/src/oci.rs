//! Images in the OCI image layout 1.1: which blobs make an image. Blobs are named by digest, so that the digest of one
//! manifest names the whole image.

use serde::Deserialize;

use crate::digest::Digest;
use crate::strict::{self, Ambiguous};
use crate::unpack::MAX_LAYERS;

pub mod carried;

/// Longest index, and longest manifest of an image, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 1024 * 1024;
/// Most images in one index.
pub const MAX_IMAGES: usize = 256;

const LAYOUT_VERSION: &str = "1.0.0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Plain or in gzip: what [`Tree::add`](crate::unpack::Tree::add) reads. Layers that a registry may not pass on are not
/// in the layout, and so not in the image.
const LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
];

/// A blob: where it lies is its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// The layers of an image, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    pub layers: Vec<Blob>,
}

/// What an index, or `index.json` of the layout, names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Image(Blob),
    /// Another index, for whoever asks again.
    Index(Blob),
}

/// Why a layout is refused.
#[derive(Debug, thiserror::Error)]
pub enum NotAnImage {
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("document does not read: {0}")]
    Json(#[source] serde_json::Error),
    #[error("layout is of another version: {0:?}")]
    Layout(String),
    #[error("document is of another version or kind")]
    Kind,
    #[error("not named by sha-256 and a size: {0:?}")]
    Unpinned(String),
    #[error("more than the limit: {0}")]
    TooMany(usize),
    #[error("layer of a kind that is not read: {0:?}")]
    Layer(String),
    #[error("the index names no image for {0}, or more than one")]
    Which(String),
    #[error("blob is not the one that was named: {0}")]
    Blob(Digest),
}

impl Blob {
    /// Where it lies in the layout.
    pub fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    pub fn check(&self, bytes: &[u8]) -> Result<(), NotAnImage> {
        let found = Digest::of(bytes);
        match found == self.digest && bytes.len() as u64 == self.size {
            true => Ok(()),
            false => Err(NotAnImage::Blob(found)),
        }
    }
}

/// Whether the layout (`oci-layout`) is of the version that is read here.
pub fn check_layout(bytes: &[u8]) -> Result<(), NotAnImage> {
    let layout: Layout = document(bytes)?;
    match layout.version == LAYOUT_VERSION {
        true => Ok(()),
        false => Err(NotAnImage::Layout(layout.version)),
    }
}

/// The image of an index for a kind of machine (`amd64`, `arm64`); an only one needs to name none.
pub fn choose(index: &[u8], architecture: &str) -> Result<Named, NotAnImage> {
    let index: Index = document(index)?;
    if index.schema != 2 {
        return Err(NotAnImage::Kind);
    }
    if index.manifests.len() > MAX_IMAGES {
        return Err(NotAnImage::TooMany(MAX_IMAGES));
    }
    let only = index.manifests.len() == 1;
    let fits = |named: &&Descriptor| match &named.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => only,
    };
    let mut fitting = index.manifests.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(named), None) => match named.kind.as_str() {
            MANIFEST => Ok(Named::Image(named.blob()?)),
            INDEX => Ok(Named::Index(named.blob()?)),
            _ => Err(NotAnImage::Kind),
        },
        _ => Err(NotAnImage::Which(architecture.to_owned())),
    }
}

impl ImageManifest {
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnImage> {
        let manifest: ManifestText = document(bytes)?;
        if manifest.schema != 2 || manifest.kind.is_some_and(|kind| kind != MANIFEST) {
            return Err(NotAnImage::Kind);
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(NotAnImage::TooMany(MAX_LAYERS));
        }
        let layer = |named: &Descriptor| match LAYERS.contains(&named.kind.as_str()) {
            true => named.blob(),
            false => Err(NotAnImage::Layer(named.kind.clone())),
        };
        Ok(Self {
            layers: manifest
                .layers
                .iter()
                .map(layer)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn document<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, NotAnImage> {
    strict::check(bytes, MAX_DOCUMENT_BYTES)?;
    serde_json::from_slice(bytes).map_err(NotAnImage::Json)
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema: u64,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ManifestText {
    #[serde(rename = "schemaVersion")]
    schema: u64,
    #[serde(rename = "mediaType")]
    kind: Option<String>,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    kind: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Descriptor {
    fn blob(&self) -> Result<Blob, NotAnImage> {
        let digest = self
            .digest
            .strip_prefix("sha256:")
            .and_then(|hex| hex.parse().ok());
        let digest = digest.ok_or_else(|| NotAnImage::Unpinned(self.digest.clone()))?;
        Ok(Blob {
            digest,
            size: self.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn named(kind: &str, architecture: Option<&str>) -> Value {
        let mut value = json!({ "mediaType": kind, "digest": format!("sha256:{}", Digest::of(b"x")), "size": 1 });
        if let Some(architecture) = architecture {
            value["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        value
    }

    fn chosen(manifests: Vec<Value>) -> Result<Named, NotAnImage> {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        choose(index.to_string().as_bytes(), "amd64")
    }

    #[test]
    fn an_index_names_one_image_for_a_machine_or_is_refused() {
        let blob = Blob {
            digest: Digest::of(b"x"),
            size: 1,
        };
        assert!(chosen(vec![]).is_err());
        assert!(
            chosen(vec![named(MANIFEST, None), named(MANIFEST, None)]).is_err(),
            "which?"
        );
        assert!(chosen(vec![named(MANIFEST, Some("arm64"))]).is_err());
        assert!(
            chosen(vec![
                named(MANIFEST, Some("amd64")),
                named(MANIFEST, Some("amd64"))
            ])
            .is_err()
        );
        assert!(chosen(vec![named("text/html", None)]).is_err());
        assert_eq!(
            chosen(vec![named(MANIFEST, None)]).unwrap(),
            Named::Image(blob)
        );
        let two = vec![named(MANIFEST, Some("arm64")), named(INDEX, Some("amd64"))];
        assert_eq!(chosen(two).unwrap(), Named::Index(blob));
        let mut short = named(MANIFEST, None);
        short["digest"] = json!("sha512:00");
        assert!(matches!(chosen(vec![short]), Err(NotAnImage::Unpinned(_))));
    }

    #[test]
    fn layers_are_of_a_kind_that_is_read_and_blobs_what_they_are_called() {
        let manifest = |layers: Value| {
            ImageManifest::parse(
                json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers })
                    .to_string()
                    .as_bytes(),
            )
        };
        assert!(matches!(
            manifest(json!([named(
                "application/vnd.oci.image.layer.v1.tar+zstd",
                None
            )])),
            Err(NotAnImage::Layer(_))
        ));
        assert!(manifest(json!(vec![named(LAYERS[0], None); MAX_LAYERS + 1])).is_err());
        let read = manifest(json!([named(LAYERS[1], None)])).unwrap();
        let blob = read.layers[0];
        assert_eq!(blob.path(), format!("blobs/sha256/{}", Digest::of(b"x")));
        blob.check(b"x").unwrap();
        assert!(blob.check(b"y").is_err());
        assert!(check_layout(br#"{"imageLayoutVersion":"1.0.0"}"#).is_ok());
        assert!(check_layout(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err());
    }
}
