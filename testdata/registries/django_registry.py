"""Serves django-oci, a registry that shares no code with Docker's: FOLDER PORT."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.urls import include, path

FOLDER, PORT = sys.argv[1:]
os.chdir(FOLDER)
FILES = "django.core.cache.backends.filebased.FileBasedCache"
settings.configure(
    SECRET_KEY="tests",  # noqa: S106 - of a server that lives for seconds
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_oci", "rest_framework"],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER}/db.sqlite3", "OPTIONS": {"timeout": 30}}
    },
    CACHES={"default": {"BACKEND": FILES, "LOCATION": f"{FOLDER}/cache"}},
    MIDDLEWARE=[],
    MEDIA_ROOT=FOLDER,
    DATA_UPLOAD_MAX_MEMORY_SIZE=1 << 30,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DJANGO_OCI={
        "DISABLE_AUTHENTICATION": True,
        "MEDIA_ROOT": "images",
        "CACHE_DIR": f"{FOLDER}/uploads",
        "VIEW_RATE_LIMIT": "100000/1s",
        "DOMAIN_URL": f"http://127.0.0.1:{PORT}",
    },
)
django.setup()
urlpatterns = [path("", include("django_oci.urls", namespace="django_oci"))]
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, verbosity=0)
