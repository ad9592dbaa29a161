//! What the OpenAPI document says of the whole.

use utoipa::OpenApi;

/// How callers show who they are.
struct Credentials;

impl utoipa::Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{
            HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
        };
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key: `edgeward apikey create`"))
            .build();
        let certificate = SecurityScheme::MutualTls {
            description: Some("An operator's certificate: `edgeward operator add`".to_owned()),
            extensions: None,
            deprecated: None,
        };
        let schemes = &mut document.components.get_or_insert_default().security_schemes;
        schemes.insert("api_key".to_owned(), SecurityScheme::Http(key).into());
        schemes.insert("operator_certificate".to_owned(), certificate.into());
        let either = ["api_key", "operator_certificate"]
            .map(|name| SecurityRequirement::new(name, [] as [&str; 0]));
        document.security = Some(either.to_vec());
    }
}

#[derive(OpenApi)]
#[openapi(
    modifiers(&Credentials),
    info(
        title = "Edgeward",
        description = "Nodes, tokens, policies and the audit log of one trust domain. Callers present an operator \
                       certificate or `Authorization: Bearer ewk1_…`. Errors are problem documents (RFC 9457) with a \
                       stable `code`. Times are RFC 3339."
    ),
    tags(
        (name = "tokens", description = "Bootstrap tokens: what a new machine enrols with"),
        (name = "nodes", description = "Machines with an agent"),
        (name = "policies", description = "Who may reach what"),
        (name = "publishers", description = "Who may release applications"),
        (name = "apps", description = "Signed applications and their releases"),
        (name = "audit", description = "What happened, and whether the record is complete"),
        (name = "witness", description = "Cosignatures for the logs of others (C2SP tlog-witness)"),
        (name = "operators", description = "People and scripts with a certificate"),
        (name = "apikeys", description = "Keys for scripts"),
        (name = "ca", description = "Who signs, and how that changes"),
        (name = "cloud", description = "The cloud itself")
    )
)]
pub(super) struct Document;
