#!/usr/bin/env bash
# CAMEL from installation to tumour maps on generated data: installs, trains, evaluates, and maps the generated test slides; and
# one slide of real tissue, by a head that comes with the project (scripts/demo_slide.sh; DEMO_SLIDE=slide.svs for one of yours).
# About 15 minutes on 2 CPU cores once installed; a second run resumes where the first one stopped.
set -euo pipefail
# As in demo_slide.sh, but before the training: a slide that does not exist ends it at once, and its path is relative to here.
if [ -n "${DEMO_SLIDE:-}" ]; then
    [ -e "$DEMO_SLIDE" ] || { echo "error: DEMO_SLIDE=$DEMO_SLIDE does not exist: give the path of a slide" >&2; exit 1; }
    DEMO_SLIDE=$(realpath -- "$DEMO_SLIDE")
    export DEMO_SLIDE
fi
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment requirements.txt
bundle=bundles/camel

echo "== Train CAMEL on image labels (data/demo is generated on first use) =="
"$PYTHON" -m monai.bundle run --config_file $bundle/configs/train.json
echo "== Evaluate on the test split =="
"$PYTHON" -m monai.bundle run --config_file $bundle/configs/evaluate.json
echo "== Map the generated test slides =="
"$PYTHON" -m monai.bundle run --config_file $bundle/configs/inference.json

echo "== Map a slide of real tissue, by a head that comes with the project =="
DEMO_PYTHON=$PYTHON bash scripts/demo_slide.sh

cat <<END

Done. What to look at:
  $PWD/$bundle/models/evaluation/examples.png   image, truth, enriched labels and prediction of test images
  $PWD/$bundle/models/evaluation/metrics.json   the numbers of the table above
  $PWD/$bundle/output/*.png                     each slide with its tumour map
  $PWD/$bundle/output/*.ome.tif, *.geojson      the maps and tumour outlines, for QuPath
  $PWD/$bundle/output/slides.csv                one row per slide: tumour area, share, seconds
  $PWD/maps/demo_slide                          the slide of real tissue, if it could be had

Map colorectal slides of your own without any training: DEMO_SLIDE=slide.svs bash scripts/demo_slide.sh

See slides and maps in a browser (needs: "$PYTHON" -m pip install -r requirements-viewer.txt -c constraints.txt):
  "$PYTHON" scripts/view.py $bundle/output --manifest data/demo/slides.csv

  MLflow: "$PWD/.venv/bin/mlflow" ui --backend-store-uri "sqlite:///$PWD/$bundle/models/mlruns.db"
END
