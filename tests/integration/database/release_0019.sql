-- A row of each table, as the schema 0019 keeps them. It stands for the data folder of the release with that schema.
INSERT INTO project (id, name, pseudonym_key) VALUES ('00000000-0000-7000-8000-000000000001', 'ward', '\x6b6579');
INSERT INTO api_key (id, project_id, name, prefix, secret_sha256, scopes) VALUES
    ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 'gateway', '0123456789ab', 'ab', '{submit,read}');
INSERT INTO console_session (id, api_key_id) VALUES
    ('00000000-0000-7000-8000-000000000003', '00000000-0000-7000-8000-000000000002');
INSERT INTO idempotency_key (id, api_key_id, key, status, body, locked_until) VALUES
    ('00000000-0000-7000-8000-000000000004', '00000000-0000-7000-8000-000000000002', 'first', 202, '{}', now());
INSERT INTO usage (api_key_id, day, files, bytes) VALUES ('00000000-0000-7000-8000-000000000002', '2026-01-15', 3, 900);
INSERT INTO audit_event (id, project_id, api_key_id, action, subject, status) VALUES
    ('00000000-0000-7000-8000-000000000005', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', 'studies.submit', '{"files": 1}', 202);
INSERT INTO study (id, project_id, study_instance_uid) VALUES
    ('00000000-0000-7000-8000-000000000006', '00000000-0000-7000-8000-000000000001', '1.2.3');
INSERT INTO image (id, project_id, study_id, sop_instance_uid, modality, sha256, byte_count, media_type, height_px, width_px,
        rendition_sha256, rendition_version, rendition_height_px, rendition_width_px, flags) VALUES
    ('00000000-0000-7000-8000-000000000007', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000006',
        '1.2.3.4', 'DX', repeat('a', 64), 900, 'application/dicom', 96, 80, repeat('b', 64), 1, 96, 80, '{rotated}');
INSERT INTO rendition (sha256, version, rendition_px, rendition_sha256, rendition_height_px, rendition_width_px, height_px, width_px) VALUES
    (repeat('c', 64), 1, 1024, repeat('d', 64), 96, 80, 96, 80);
INSERT INTO model (id, name, digest, card, weights_sha256, state) VALUES
    ('00000000-0000-7000-8000-000000000008', 'chest', repeat('e', 64), '{"categories": []}', repeat('f', 64), 'active');
INSERT INTO submission (id, project_id, api_key_id, state, priority, file_count) VALUES
    ('00000000-0000-7000-8000-000000000009', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', 'processing', 5, 1);
INSERT INTO job (id, project_id, image_id, study_id, submission_id, model_id, state, priority, alone, attempt, finished_at) VALUES
    ('00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000007',
        '00000000-0000-7000-8000-000000000006', '00000000-0000-7000-8000-000000000009', '00000000-0000-7000-8000-000000000008',
        'succeeded', 5, false, 1, now());
INSERT INTO job (id, project_id, image_id, study_id, state, priority, alone, attempt, lease_owner, lease_expires_at) VALUES
    ('00000000-0000-7000-8000-00000000000b', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000007',
        '00000000-0000-7000-8000-000000000006', 'detecting', 5, false, 1, 'detect@host:1:2', now());
INSERT INTO submission_file (submission_id, number, name, state, priority, attempt, image_id, job_id) VALUES
    ('00000000-0000-7000-8000-000000000009', 0, 'a.dcm', 'accepted', 5, 1, '00000000-0000-7000-8000-000000000007', '00000000-0000-7000-8000-00000000000a');
INSERT INTO detection (job_id, rank, model_id, class_id, class_name, score, x_min_px, y_min_px, x_max_px, y_max_px) VALUES
    ('00000000-0000-7000-8000-00000000000a', 0, '00000000-0000-7000-8000-000000000008', 1, 'Mass', 0.9, 1, 2, 30, 40);
INSERT INTO top_score (study_id, class_name, job_id, project_id, image_id, score, tenth) VALUES
    ('00000000-0000-7000-8000-000000000006', 'Mass', '00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000007', 0.9, 9);
INSERT INTO review_event (job_id, number, project_id, image_id, model_id, api_key_id, reader, action, rank) VALUES
    ('00000000-0000-7000-8000-00000000000a', 1, '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000007',
        '00000000-0000-7000-8000-000000000008', '00000000-0000-7000-8000-000000000002', 'gateway', 'accept', 0);
INSERT INTO worker (id, stage, batches, images, step_s, expired_leases) VALUES ('detect@host:1:2', 'detect', 1, 8, 0.5, 0);
INSERT INTO webhook (id, project_id, api_key_id, url, secret, events, enabled) VALUES
    ('00000000-0000-7000-8000-00000000000c', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', 'https://a.example/', 's', '{job.finished}', true);
INSERT INTO webhook_delivery (id, webhook_id, event, payload, state, attempt) VALUES
    ('00000000-0000-7000-8000-00000000000d', '00000000-0000-7000-8000-00000000000c', 'job.finished', '{}', 'pending', 0);
INSERT INTO dataset (id, project_id, name, source, state, attempt, losses, progress, log_tail, digest) VALUES
    ('00000000-0000-7000-8000-00000000000e', '00000000-0000-7000-8000-000000000001', 'films', '{}', 'succeeded', 1, 0, '{}', '', repeat('1', 64));
INSERT INTO schedule (id, project_id, name, cron, time_zone, dataset_name, config, overlap, skip_unchanged, enabled) VALUES
    ('00000000-0000-7000-8000-00000000000f', '00000000-0000-7000-8000-000000000001', 'weekly', '0 3 * * 0', 'UTC', 'films', '{}', 'skip', true, true);
INSERT INTO training_run (id, project_id, name, dataset_id, config, config_digest, state, attempt, losses, progress, log_tail, events, model_id) VALUES
    ('00000000-0000-7000-8000-000000000010', '00000000-0000-7000-8000-000000000001', 'run', '00000000-0000-7000-8000-00000000000e', '{}', '',
        'succeeded', 1, 0, '{}', '', '{}', '00000000-0000-7000-8000-000000000008');
INSERT INTO training_point (training_run_id, step, epoch, values) VALUES ('00000000-0000-7000-8000-000000000010', 1, 0.5, '{"loss": 1}');
INSERT INTO evaluation (id, project_id, model_id, dataset_id, config, state, attempt, losses, progress, log_tail) VALUES
    ('00000000-0000-7000-8000-000000000011', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000008',
        '00000000-0000-7000-8000-00000000000e', '{}', 'succeeded', 1, 0, '{}', '');
INSERT INTO gate_decision (id, project_id, candidate_model_id, config, state, attempt, losses, progress, log_tail) VALUES
    ('00000000-0000-7000-8000-000000000012', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000008', '{}', 'succeeded', 1, 0, '{}', '');
INSERT INTO erasure (id, project_id, study_id, sha256s, keys, dataset_ids) VALUES
    ('00000000-0000-7000-8000-000000000013', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-0000000000ff', '{}', '{}', '{}');
INSERT INTO erased_object (key_sha256) VALUES (repeat('2', 64));
INSERT INTO queue_sample (at, oldest_waiting_s, elapsed_s, batches, images, step_s,
        queued, preparing, ready, detecting, succeeded, rejected, failed, cancelled) VALUES
    ('2026-01-15 12:00:00+00', 0, 15, 1, 8, 0.5, 0, 0, 0, 1, 1, 0, 0, 0);
