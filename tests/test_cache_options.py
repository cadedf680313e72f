"""How --cache-from and --cache-to are written, and what is refused."""

import pytest

from builder.caches import CachePlace, CacheTarget, Kind
from builder.cli.caches import cache_sources, cache_targets
from builder.errors import UsageError
from layers.compress import Compression

INLINE = CacheTarget(CachePlace(Kind.INLINE))


def test_a_name_alone_is_a_reference_of_a_registry() -> None:
    place = CachePlace(Kind.REGISTRY, {"ref": "host/team/app:cache"})

    assert cache_sources(["host/team/app:cache", "type=registry,ref=host/team/app:cache"], {}) == (place, place)
    assert cache_targets(["host/team/app:cache"], {}, {}) == (CacheTarget(place),)


def test_all_that_can_be_said_of_a_target() -> None:
    text = (
        "type=local,dest=/d,tag=t,mode=max,ignore-error=true,compression=zstd,compression-level=9,oci-mediatypes=true"
    )

    (target,) = cache_targets([text], {}, {})

    place = CachePlace(Kind.LOCAL, {"dest": "/d", "tag": "t"})
    assert target == CacheTarget(place, every_stage=True, may_fail=True, compression=Compression.ZSTD, level=9)


def test_a_workflow_of_github_says_where_its_cache_is() -> None:
    environment = {"ACTIONS_RESULTS_URL": "https://results.example/", "ACTIONS_RUNTIME_TOKEN": "t"}

    (place,) = cache_sources(["type=gha,scope=main"], environment)

    assert place.settings == {"url_v2": "https://results.example/", "token": "t", "scope": "main"}


@pytest.mark.parametrize(("texts", "value"), [(["type=inline"], ""), ([], "1"), ([], "true"), (["type=inline"], "1")])
def test_an_image_carries_its_cache_on_demand(texts: list[str], value: str) -> None:
    assert cache_targets(texts, {"BUILDKIT_INLINE_CACHE": value}, {}) == (INLINE,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ref=host/app", "type= is missing"),
        ("type=ftp,ref=x", "there is no type ftp"),
        ("type=gha,token=x", "url_v2= is missing"),
        ("type=gha,token=x,url_v2=y,version=1", "have no version here"),
        ("type=registry", "ref= is missing"),
        ("type=registry,ref=UPPER", "is not an image name"),
        ("type=registry,ref", "is not written KEY=VALUE"),
        ("type=inline", "asked for by its name"),
        ("type=local,dest=/d", "src= is missing"),
        ("type=local,src=/d,digest=x", "is not a digest"),
        ("type=local,src=/d,mode=max", "have no mode here"),
    ],
)
def test_a_source_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cache_sources([text], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=registry,ref=host/app@sha256:" + 64 * "0", "a digest cannot be chosen"),
        ("type=registry,ref=host/app,mode=most", "there is no mode most"),
        ("type=registry,ref=host/app,ignore-error=perhaps", "ignore-error is true or false"),
        ("type=registry,ref=host/app,image-manifest=false", "image-manifest=false is not supported"),
        ("type=registry,ref=host/app,force-compression=false", "force-compression=false is not supported"),
        ("type=registry,ref=host/app,compression=estargz", "not supported for caches"),
        ("type=registry,ref=host/app,compression=lzma", "there is no compression lzma"),
        ("type=registry,ref=host/app,timeout=3", "have no timeout here"),
        ("type=inline,mode=max", "only its own steps"),
        ("type=s3,bucket=b,upload_parallelism=many", "upload_parallelism is a number"),
        ("type=s3,bucket=b,touch_refresh=24h", "have no touch_refresh here"),
    ],
)
def test_a_target_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cache_targets([text], {}, {})
