SET LOCAL check_function_bodies = off;
CREATE TABLE public.events (
    id bigint NOT NULL,
    "position" bigint,
    type text NOT NULL,
    topics text[] NOT NULL,
    subject_id uuid NOT NULL,
    payload jsonb NOT NULL,
    key text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE public.events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.leaders (
    name text NOT NULL,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
SELECT pg_catalog.setval('public.events_id_seq', 1, false);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.leaders
    ADD CONSTRAINT leaders_pkey PRIMARY KEY (name);
CREATE UNIQUE INDEX events_key_key ON public.events USING btree (key) WHERE (key IS NOT NULL);
CREATE UNIQUE INDEX events_position_key ON public.events USING btree ("position") WHERE ("position" IS NOT NULL);
CREATE INDEX events_unpublished_idx ON public.events USING btree (id) WHERE ("position" IS NULL);
GRANT USAGE ON SCHEMA public TO qubix_web;
GRANT USAGE ON SCHEMA public TO qubix_controller;
GRANT USAGE ON SCHEMA public TO qubix_fabric;
GRANT USAGE ON SCHEMA public TO qubix_treasury;
GRANT USAGE ON SCHEMA public TO qubix_signer;
GRANT SELECT,INSERT ON TABLE public.events TO qubix_web;
GRANT SELECT,INSERT,DELETE ON TABLE public.events TO qubix_controller;
GRANT SELECT,INSERT ON TABLE public.events TO qubix_treasury;
GRANT UPDATE("position") ON TABLE public.events TO qubix_web;
GRANT UPDATE("position") ON TABLE public.events TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_controller;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leaders TO qubix_fabric;
GRANT SELECT ON TABLE public.leaders TO qubix_web;
