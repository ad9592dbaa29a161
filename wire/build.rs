//! Generates the contract from `proto/` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "edgeward/v1/apps.proto",
        "edgeward/v1/enrolment.proto",
        "edgeward/v1/relay.proto",
        "edgeward/v1/session.proto",
        "edgeward/v1/workload.proto",
        "spiffe/workload.proto",
        "envoy/service/auth/v3/external_auth.proto",
    ];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
