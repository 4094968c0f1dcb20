#!/usr/bin/env bash
# CAMEL from installation to tumour maps on generated data: installs, trains, evaluates, and maps the generated test slides.
# About 15 minutes on 2 CPU cores once installed; a second run resumes where the first one stopped.
set -euo pipefail
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

cat <<END

Done. What to look at:
  $PWD/$bundle/models/evaluation/examples.png   image, truth, enriched labels and prediction of test images
  $PWD/$bundle/models/evaluation/metrics.json   the numbers of the table above
  $PWD/$bundle/output/*.png                     each slide with its tumour map
  $PWD/$bundle/output/*.ome.tif, *.geojson      the maps and tumour outlines, for QuPath
  $PWD/$bundle/output/slides.csv                one row per slide: tumour area, share, seconds

See slides and maps in a browser (needs: "$PYTHON" -m pip install -r requirements-viewer.txt -c constraints.txt):
  "$PYTHON" scripts/view.py $bundle/output --manifest data/demo/slides.csv

A slide of your own, of colorectal tissue, is mapped without any training by the head in $bundle/models/ebhi_seg (its README.md
says what it was trained on; research only):
  "$PYTHON" -m monai.bundle run --config_file "['$bundle/configs/inference.json','$bundle/models/ebhi_seg/inference.json']" \\
      --source slide.svs --output_dir maps

  MLflow: "$PWD/.venv/bin/mlflow" ui --backend-store-uri "sqlite:///$PWD/$bundle/models/mlruns.db"
END
