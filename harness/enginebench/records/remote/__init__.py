"""Runs in a store that fsspec reaches (S3, Google Cloud Storage, SFTP, a mounted folder): leases, and a mirror of them on this machine."""
