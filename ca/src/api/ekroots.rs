//! The vendor roots that EK certificates are checked against.

use axum::Json;
use axum::extract::State;

use super::views::{EkRootView, ProblemView};
use super::{Cloud, Items, items};

/// List the roots for EK certificates, with the tier that each proves.
#[utoipa::path(get, path = "/api/v1/ek-roots", tag = "cloud", operation_id = "ek_root_list",
    responses((status = 200, body = Items<EkRootView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Json<Items<EkRootView>> {
    items(api.control.ek_roots())
}
